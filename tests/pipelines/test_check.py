"""adalabel check as a whole: on this machine, and where workers are not what they should be."""

import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from processes import free_port, listens, until

from launch import cli
from launch.runners import local
from pipelines import check
from pipelines.bounded import Teller
from pipelines.check import CheckOptions, CheckReceipt
from pipelines.check_job import Answered, Asked, Taken
from policy.errors import InputError
from transforms.findings import Finding, failed

BAD = failed("gpu (worker)", "none", "buy one")
LATE = failed("worker", "killed", "look", 5)
GOOD = Finding("versions (worker)", ok=True, said="all")

Command = Callable[[list[str]], tuple[int, str, str]]


def receipt(*findings: Finding) -> CheckReceipt:
    good = all(finding.ok for finding in findings)
    return CheckReceipt("out", "local", good, ("w1", "w2"), findings)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    networks = tiny.write_networks(tmp_path / "networks")
    tiny.write_tar(tmp_path / "s.tar", tiny.image_members(np.random.default_rng(0), 2))
    return {
        "networks": str(networks),
        "output": str(tmp_path / "out"),
        "input": (f"{tmp_path}/*.tar",),
        "batch_size": 4,
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("findings", "code"), [((GOOD,), 0), ((GOOD, LATE), 5), ((LATE, BAD, GOOD), 2)]
)
def test_the_exit_code_says_whether_something_must_be_changed(
    findings: tuple[Finding, ...], code: int
) -> None:
    assert receipt(*findings).exit_code == code


def test_without_an_answer_nothing_is_well() -> None:
    assert CheckReceipt("out", "flink", False, (), ()).exit_code == 5  # noqa: FBT003


def test_the_text_has_a_line_for_each_check_and_the_remedy_below_it() -> None:
    assert receipt(GOOD, BAD).text().splitlines() == [
        "ok      versions (worker): all",
        "FAILED  gpu (worker): none",
        "        -> buy one",
        "out, on local (w1, w2): 1 of 2 checks failed",
    ]
    assert receipt(GOOD).text().endswith("all checks passed")


def test_a_check_on_this_machine_passes_and_leaves_nothing(
    options: dict[str, Any], tmp_path: Path
) -> None:
    found = check.run(CheckOptions(**options), local(1))
    assert found.ok, found.text()
    assert found.exit_code == 0
    assert found.hosts == (socket.gethostname(),)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_output_in_use_is_left_as_it_is(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/_lock").write_text("of a run")
    (tmp_path / "out/s.parquet").write_text("labels")
    assert check.run(CheckOptions(**options), local(1)).ok
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["_lock", "s.parquet"]


@pytest.mark.parametrize("wait", [0, -1])
def test_waiting_for_nothing_is_refused(options: dict[str, Any], wait: float) -> None:
    with pytest.raises(InputError, match=rf"--wait {wait}: wanted more than 0 seconds"):
        CheckOptions(**options, wait=wait)


def test_a_place_that_can_hold_no_output_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no place for an output"):
        check.run(CheckOptions(**(options | {"output": "http://x/y"})), [])


def stuck(_asked: Asked, _teller: Teller) -> None:
    time.sleep(600)


def stuck_later(_asked: Asked, teller: Teller) -> None:
    teller.say(Taken())
    teller.say(GOOD)
    time.sleep(600)


def gone(_asked: Asked, _teller: Teller) -> None:
    os._exit(1)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (stuck, "the runner took no job within 4 s"),
        (stuck_later, "the runner took the job, and no worker was done within 4 s"),
        (gone, "ended by itself"),
    ],
)
def test_a_runner_that_never_answers_ends_in_a_message(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, work: Any, said: str
) -> None:
    monkeypatch.setattr(check, "check_job", work)
    flags = ["--environment_type=EXTERNAL", "--environment_config=w:5"]
    found = check.run(CheckOptions(**options, wait=4), flags)
    last = found.findings[-1]
    assert said in last.said
    assert last.remedy == (
        "start a pool beside each of the cluster's own workers, which reach it at w:5: "
        "adalabel-worker --pool 5"
    )
    assert (found.ok, found.exit_code) == (False, 5)


def quick(_asked: Asked, teller: Teller) -> None:
    teller.say(Answered("w1"))


def test_a_probe_that_cannot_be_removed_is_a_failure(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "check_job", quick)
    monkeypatch.setattr(check, "removed", lambda _: failed("removal", "stays", "by hand"))
    found = check.run(CheckOptions(**options), [])
    assert (found.ok, found.exit_code, found.findings[0].said) == (False, 2, "stays")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The exit code of a command of this process, and what it says on stdout and on stderr."""
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.setenv(variable, "1000000")
    monkeypatch.setattr(cli, "_ENDINGS", [])

    def run(arguments: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, which keep what is logged
        return cli.main(arguments), *capsys.readouterr()

    return run


def test_the_command_tells_all_and_ends_with_the_exit_code(
    options: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    (tmp_path / "networks/big.safetensors").unlink()
    arguments = ["check", "--networks", options["networks"], "--output", options["output"]]
    code, out, err = command(arguments)
    assert (code, err) == (2, "")
    assert "FAILED  network big (worker): " in out
    assert "checks failed" in out


def took_it_and_was_done(_work: object, _seconds: float, take: Callable[[object], None]) -> None:
    take(Taken())
    take(Answered("w1"))


def test_a_cluster_that_took_the_job_is_told_of_at_once_and_this_machine_is_not(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(check, "results", took_it_and_was_done)
    given = ["check", "--networks", options["networks"], "--output", options["output"]]
    flags = ["--job_endpoint=j:1", "--environment_type=EXTERNAL", "--environment_config=w:5"]
    code, out, err = command([*given, "--on", "spark", "--wait", "7", "--", *flags])
    assert (code, err) == (0, "spark took the job; waiting for a worker (--wait 7)\n")
    assert "took the job" not in out  # which --json leaves to machines
    assert command(given)[2] == ""


def test_the_command_of_the_docs_passes(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    page = (tiny.FOLDER.parent / "docs/preflight.md").read_text()
    (words,) = re.findall(r"```sh\n(.*)\n```", page)
    shutil.copytree(world.folder, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    (tmp_path / "world/corpus").symlink_to(".")
    code, out, _ = command(shlex.split(words)[1:])
    assert code == 0
    assert "all checks passed" in out
    assert "ok      policy (worker): policy " in out
    assert not (tmp_path / "world/labels").exists()


# A job server of its own, as on a cluster: Beam's, in Python; and adalabel's pool of workers, as
# Beam's starts whatever `python` is on the PATH.


@contextmanager
def started(port: int, *command: str) -> Iterator[int]:
    """A process that listens on this port, while the body runs."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            until(f"port {port}", lambda: listens(port))
            yield port
        finally:
            os.killpg(process.pid, 9)


JOB_SERVER = """
import socket
import sys
from apache_beam.runners.portability import local_job_service_main

socket.getfqdn = lambda *_: "localhost"  # what workers are to call it; not every name resolves
local_job_service_main.run(sys.argv[1:])
"""


@pytest.fixture
def job_server() -> Iterator[int]:
    port = free_port()
    with started(port, sys.executable, "-c", JOB_SERVER, "-p", str(port)):
        yield port


def pool(port: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "launch.worker", "--pool", str(port))


def on_cluster(job_server: int, worker_pool: int) -> list[str]:
    return [
        "--runner=PortableRunner",
        f"--job_endpoint=127.0.0.1:{job_server}",
        "--environment_type=EXTERNAL",
        f"--environment_config=127.0.0.1:{worker_pool}",
    ]


@pytest.mark.slow
def test_a_worker_of_another_process_passes(options: dict[str, Any], job_server: int) -> None:
    port = free_port()
    with started(port, *pool(port)):
        found = check.run(CheckOptions(**options, wait=500), on_cluster(job_server, port))
    assert found.ok, found.text()


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode,  # noqa: S607
    reason="no mount namespaces here",
)
def test_a_worker_whose_output_is_a_disk_of_its_own_is_found(
    options: dict[str, Any], job_server: int, tmp_path: Path
) -> None:
    """A container without the shared mount: the same path, another file system."""
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    mount = f'mount -t tmpfs tmpfs {out} && exec "$@"'
    with started(port, "unshare", "-rm", "sh", "-c", mount, "sh", *pool(port)):
        found = check.run(CheckOptions(**options, wait=500), on_cluster(job_server, port))
    (bad,) = [finding for finding in found.findings if not finding.ok]
    assert bad.check == "output is shared (worker)", found.text()
    assert "where they are lost" in bad.said
    assert found.hosts
    assert found.exit_code == 2
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_a_worker_pool_that_is_not_there_ends_in_a_message(
    options: dict[str, Any], job_server: int, tmp_path: Path
) -> None:
    found = check.run(CheckOptions(**options, wait=15), on_cluster(job_server, free_port()))
    last = found.findings[-1]
    assert (last.check, last.ok) == ("worker", False), found.text()
    assert "which reach it at 127.0.0.1:" in last.remedy
    assert found.exit_code == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_is_ended_half_way_leaves_nothing(
    options: dict[str, Any], job_server: int, tmp_path: Path, how: signal.Signals
) -> None:
    given = ["--networks", options["networks"], "--output", options["output"]]
    flags = on_cluster(job_server, free_port())
    command = [sys.executable, "-m", "launch.cli", "check", *given, "--", *flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tiny.FOLDER.parent) as process:
        until("the probe", lambda: list(tmp_path.glob("out/_preflight.*/launcher")))
        process.send_signal(how)
    until("the end of the probe", lambda: not (tmp_path / "out").exists())


def test_a_path_that_no_worker_sees_is_refused_before_any_job(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is a path of this machine, which no worker sees"):
        check.run(CheckOptions(**options | {"on": "dataflow"}), [])
