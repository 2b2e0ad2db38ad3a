"""The presets for clusters ask for what they need before anything is started."""

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

from launch import flink, runners
from launch.cli import main
from launch.cluster import stop_job_server
from launch.runners import abandon, check_beam_flags, preset
from pipelines.options import RunOptions
from pipelines.places import Place, Runner
from policy.errors import InputError

POOL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")
MASTER = {"flink": "--flink_master=host:8081", "spark": "--spark_master_url=spark://host:7077"}
PLACES: tuple[Place, ...] = ("flink", "spark")


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "job-server.jar"
    path.touch()
    return path


def jar_flag(on: Place, jar: Path) -> str:
    return f"--{on}_job_server_jar={jar}"


@pytest.mark.parametrize("on", PLACES)
def test_the_presets_are_flags_that_beam_knows(on: Place, jar: Path) -> None:
    flags = preset(Runner(on, 3, (*POOL, MASTER[on], jar_flag(on, jar))))
    check_beam_flags(flags)
    assert flags[0] == f"--runner=apache_beam.runners.portability.{on}_runner.{on.title()}Runner"
    assert flags[-1] == jar_flag(on, jar)


def test_workers_of_flink_are_slots_and_each_job_has_a_name_of_its_own() -> None:
    first, second = (preset(Runner("flink", 3, (*POOL, "--job_endpoint=host:1"))) for _ in "12")
    assert PipelineOptions(first).view_as(FlinkRunnerOptions).parallelism == 3
    names = {PipelineOptions(f).view_as(GoogleCloudOptions).job_name for f in (first, second)}
    assert len(names) == 2


@pytest.mark.parametrize("on", PLACES)
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "--environment_type is not given; wanted --environment_type=EXTERNAL .*=PROCESS"),
        (("--environment_type=LOOPBACK",), "LOOPBACK would send all images through this process"),
        (("--environment_type=PROCESS",), "--environment_config is not given for .*=PROCESS; want"),
        ((*POOL, "--setup_file=./setup.py"), "--setup_file: workers run what is installed beside"),
        ((*POOL, "--save_main_session"), "--save_main_session: workers run what is installed"),
    ],
)
def test_an_environment_without_adalabel_is_refused(
    on: Place, flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        preset(Runner(on, 1, (*flags, "--job_endpoint=host:1")))


def test_a_cluster_is_neither_guessed_nor_started() -> None:
    with pytest.raises(InputError, match=r"--flink_master is not given; wanted .*=HOST:PORT"):
        preset(Runner("flink", 1, POOL))
    with pytest.raises(InputError, match=r"--spark_master_url=local\[4\] is no cluster; wanted"):
        preset(Runner("spark", 1, POOL))


@pytest.mark.parametrize("on", PLACES)
def test_a_job_server_is_not_downloaded(on: Place) -> None:
    given = (*POOL, MASTER[on])
    with pytest.raises(InputError, match=f"--{on}_job_server_jar is not given; wanted the jar of"):
        preset(Runner(on, 1, given))
    with pytest.raises(InputError, match=r"_jar=nowhere.jar: no such file; .* --job_endpoint="):
        preset(Runner(on, 1, (*given, f"--{on}_job_server_jar=nowhere.jar")))


def test_the_command_line_ends_with_2_and_says_which_flag_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed = ["--networks", "/n", "--policy", "p", "--input", "/i", "--output", "gs://b/o"]
    assert main(["classify", *needed, "--on", "flink"]) == 2
    assert "adalabel classify: --environment_type is not given" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["networks", "input", "output"])
def test_a_path_that_holds_in_the_launchers_folder_alone_is_refused(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    paths = {"networks": "/n", "input": "/i", "output": "/o", "policy": "p"} | {name: "here/x"}
    flags = [word for name, path in paths.items() for word in (f"--{name}", path)]
    assert main(["classify", *flags, "--on", "spark"]) == 2
    said = capsys.readouterr().err
    assert f"--{name} here/x: a cluster's workers have other working folders" in said
    assert f"such as {Path.cwd()}/here/x" in said


def test_workers_on_a_cluster_count_their_own_cores() -> None:
    worker = RunOptions(on="flink", workers=4, threads=3).worker
    assert (worker.decode_threads, worker.threads) == (0, 3)


JOBS = {"jobs": [{"name": n, "jid": f"id-{n}"} for n in ("adalabel-1", "adalabel-2")]}


class JobManager(http.server.BaseHTTPRequestHandler):
    """As much of Flink's REST interface as cancelling takes."""

    cancelled: list[str]
    jobs: object = JOBS

    def do_GET(self) -> None:
        self._say(self.jobs)

    def do_PATCH(self) -> None:
        self.cancelled.append(self.path)
        self._say({})

    def _say(self, answer: object) -> None:
        self.send_response(202)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def jobmanager() -> Iterator[tuple[int, list[str]]]:
    cancelled: list[str] = []
    handler = type("Handler", (JobManager,), {"cancelled": cancelled})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, cancelled
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_the_job_of_a_run_that_ends_is_cancelled_and_no_other(
    jobmanager: tuple[int, list[str]], scheme: str
) -> None:
    port, cancelled = jobmanager
    abandon("flink", [f"--flink_master={scheme}127.0.0.1:{port}", "--job_name=adalabel-2"])
    assert cancelled == ["/jobs/id-adalabel-2?mode=cancel"]


def test_a_job_that_cannot_be_cancelled_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flink, "ANSWER_SECONDS", 0.1)
    flink.cancel(["--flink_master=127.0.0.1:1", "--job_name=a"])
    flink.cancel(["--job_name=b"])
    first, second = caplog.messages
    assert first.startswith("job a could not be cancelled and may go on: ")
    assert second == "without --flink_master, job b is left to its job server"


@pytest.mark.parametrize("answer", [{"errors": []}, {"jobs": [{}]}, [], None])
def test_a_server_that_is_no_jobmanager_keeps_no_run_from_ending(
    jobmanager: tuple[int, list[str]],
    answer: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(JobManager, "jobs", answer)
    flink.cancel([f"--flink_master=127.0.0.1:{jobmanager[0]}", "--job_name=a"])
    (said,) = caplog.messages
    assert said.startswith("job a could not be cancelled and may go on: ")


def test_a_server_that_speaks_no_http_keeps_no_run_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=_babble, args=(server,))
        answer.start()
        flink.cancel([f"--flink_master=127.0.0.1:{server.getsockname()[1]}", "--job_name=a"])
        answer.join()
    (said,) = caplog.messages
    assert said.startswith("job a could not be cancelled and may go on: ")


def _babble(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"hello\r\n\r\n")


def test_nothing_is_ended_after_a_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "stop_job_server", lambda: pytest.fail("stopped"))
    abandon("local", [])


def test_a_thread_that_ends_while_it_is_looked_at_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter([tmp_path / "gone/children"]))
    stop_job_server()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system lists no children")
def test_only_a_child_that_runs_a_jar_is_taken_for_a_job_server() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen([*sleep, "-jar"]) as server, subprocess.Popen(sleep) as other:
        time.sleep(0.1)  # until both are what they are to be, and not yet copies of this process
        stop_job_server()
        assert server.wait(10) == -15
        assert other.poll() is None
        other.kill()
