import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from launch.runners import local
from pipelines import check_job as module
from pipelines.check_job import Answered, Asked, Taken, check_job, clocks, remedy_for
from transforms import preflight
from transforms.findings import Finding
from transforms.output_probe import Probe, missing_folders
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=1, threads=1, device="cpu")


class Heard:
    """Keeps what is said, as the process that waits would."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.stops: list[Callable[[], object]] = []

    def say(self, found: object) -> None:
        self.said.append(found)

    def at_end(self, stop: Callable[[], object]) -> None:
        self.stops.append(stop)

    @property
    def findings(self) -> dict[str, Finding]:
        return {found.check: found for found in self.said if isinstance(found, Finding)}

    @property
    def failed(self) -> dict[str, Finding]:
        return {check: found for check, found in self.findings.items() if not found.ok}


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Asked]:
    networks = tiny.write_networks(tmp_path / "networks")
    tiny.write_tar(tmp_path / "s.tar", tiny.image_members(np.random.default_rng(0), 1))
    root = str(tmp_path / "out")

    def make(**changes: Any) -> Asked:
        known: dict[str, Any] = {
            "networks": str(networks),
            "policy": None,
            "input": (f"{tmp_path}/*.tar",),
            "worker": WORKER,
            "probe": Probe.of(root),
            "made": missing_folders(root),
            "beam_args": tuple(local(1)),
        }
        return Asked(**(known | changes))

    return make


def heard(asked: Asked) -> Heard:
    teller = Heard()
    check_job(asked, teller)
    return teller


def test_all_is_well_on_this_machine(asked: Callable[..., Asked], tmp_path: Path) -> None:
    teller = heard(asked())
    assert teller.failed == {}
    assert {
        "networks file (launcher)",
        "input (launcher)",
        "output (launcher)",
        "worker",
        "output is shared (launcher)",
        "versions (worker)",
        "network big (worker)",
        "input (worker)",
        "output is shared (worker)",
        "output (worker)",
        "clocks",
    } <= teller.findings.keys()
    assert Answered(socket.gethostname()) in teller.said
    assert Taken() in teller.said
    assert not (tmp_path / "out").exists()


def test_what_the_launcher_cannot_read_is_told_and_the_rest_is_tried(
    asked: Callable[..., Asked], tmp_path: Path
) -> None:
    teller = heard(asked(networks="no.toml", policy=f"{tmp_path}/no", input=("no/*.tar",)))
    assert teller.failed.keys() == {
        "networks file (launcher)",
        "policy (launcher)",
        "input (launcher)",
    }
    assert "adalabel fit" in teller.failed["policy (launcher)"].said
    assert teller.findings["output (worker)"].ok


def test_a_policy_is_tried_with_the_networks_it_was_fitted_for(
    asked: Callable[..., Asked], world: Any, tmp_path: Path
) -> None:
    good = heard(asked(networks=world.networks, policy=world.policy, input=()))
    assert good.failed == {}
    assert " fits small, big" in good.findings["policy (worker)"].said
    other = world.networks_file(tmp_path / "other", seed=1)
    (failed,) = heard(asked(networks=other, policy=world.policy, input=())).failed.values()
    assert failed.check == "policy (worker)"
    assert "was fitted for network 'small' with fingerprint" in failed.said
    assert "fit again" in failed.remedy


def test_a_network_whose_module_is_only_at_the_launcher_is_told(
    asked: Callable[..., Asked], tmp_path: Path
) -> None:
    networks = tmp_path / "networks/networks.toml"
    networks.write_text(networks.read_text().replace("tiny_networks:", "only_here:"))
    failed = heard(asked()).failed
    assert failed.keys() == {"network small (worker)", "network big (worker)"}
    assert "'only_here' cannot be imported" in failed["network small (worker)"].said


def test_a_worker_with_other_versions_is_told(
    asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "versions", lambda: {"torch": "0.1", "python": "2.7"})
    (failed,) = heard(asked()).failed.values()
    assert failed.check == "versions (worker)"
    assert "(the launcher has 0.1), python" in failed.said
    assert "pip install -r requirements.lock" in failed.remedy


def test_a_worker_that_writes_to_its_own_disk_is_found(
    asked: Callable[..., Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's root is another folder than the launcher's of the same name."""
    theirs = tmp_path / "container" / "out"
    real = preflight.probe_output

    def elsewhere(wanted: Any, host: str) -> Any:
        probe = Probe(str(theirs), wanted.probe.token)
        return real(preflight.replace(wanted, probe=probe), host)

    monkeypatch.setattr(preflight, "probe_output", elsewhere)
    teller = heard(asked())
    (failed,) = teller.failed.values()
    assert failed.check == "output is shared (worker)"
    assert "which would write labels to a disk of its own, where they are lost" in failed.said
    assert "gs://" in failed.remedy
    assert teller.findings["network small (worker)"].ok  # told although the output carried nothing
    assert teller.findings["worker"].ok
    assert not theirs.parent.exists()
    assert not (tmp_path / "out").exists()


def test_a_worker_that_sees_ours_but_writes_elsewhere_is_found(
    asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a container whose image layers hide what it writes."""
    monkeypatch.setattr(preflight, "_reported", lambda *_: "nowhere")
    teller = heard(asked())
    failed = teller.failed["worker"]
    assert "no worker's report came back" in failed.said
    assert failed.exit_code == 2
    assert "gs://" in failed.remedy


def test_an_output_that_the_launcher_cannot_write_is_told(
    asked: Callable[..., Asked], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("stands in the way")
    teller = heard(asked(probe=Probe.of(f"{tmp_path}/file/out")))
    assert teller.failed.keys() == {"output (launcher)", "output (worker)"}
    assert "file" in teller.failed["output (launcher)"].said
    assert "right to write" in teller.failed["output (launcher)"].remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_told(
    asked: Callable[..., Asked], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    teller = heard(asked())
    assert "Permission denied" in teller.failed["output (launcher)"].said


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, so nobody else gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("flag", ["job_endpoint", "flink_master"])
def test_a_job_server_that_is_not_there_is_told_at_once(
    asked: Callable[..., Asked], closed_port: int, tmp_path: Path, flag: str
) -> None:
    flags = ("--runner=PortableRunner", f"--{flag}=http://127.0.0.1:{closed_port}")
    teller = heard(asked(beam_args=flags))
    (failed,) = teller.failed.values()
    assert failed.said == f"--{flag} 127.0.0.1:{closed_port}: Connection refused"
    assert f"start what listens there, or give its right address: -- --{flag}=" in failed.remedy
    assert failed.exit_code == 5
    assert "worker" not in teller.findings
    assert not (tmp_path / "out").exists()


def test_a_job_server_that_listens_is_told(closed_port: int) -> None:
    del closed_port
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (place,) = module._addresses([f"--job_endpoint=127.0.0.1:{port}"])
        assert module._reached(*place).said == f"127.0.0.1:{port} answers"


def test_addresses_that_are_no_host_and_port_are_left_to_the_runner() -> None:
    assert module._addresses(["--flink_master=[auto]", "--job_endpoint=embed"]) == []


def test_a_worker_that_dies_is_told_in_one_line(
    asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'only_here'")

    monkeypatch.setattr(preflight, "probe_output", bug)
    failed = heard(asked()).failed["worker"]
    assert "No module named 'only_here'" in failed.said
    assert "\n" not in failed.said
    assert "where its workers start" in failed.remedy
    assert "--setup_file" not in failed.remedy  # --on flink and spark refuse it
    assert failed.exit_code == 2


def test_a_job_that_ends_without_a_report_is_told(
    asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_run", lambda *_: "CANCELLED")
    failed = heard(asked()).failed["worker"]
    assert failed.said.startswith("the job ended as CANCELLED, and no worker's report came back")


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (
            ["--environment_type=EXTERNAL", "--environment_config=w:5"],
            "at w:5: adalabel-worker --pool 5",
        ),
        (["--environment_type=DOCKER", "--environment_config=img:1"], "as DOCKER with img:1"),
        ([], "logs of the runner"),
    ],
)
def test_the_remedy_names_where_workers_come_from(flags: list[str], remedy: str) -> None:
    assert remedy in remedy_for("anything", flags)


@pytest.mark.parametrize(
    ("skew", "ok", "said"),
    [
        (0.2, True, "clock of w1 is 0.2 s ahead"),
        (-29.0, True, "clock of w1 is 29.0 s behind"),
        (31.0, False, "clock of w1 is 31.0 s ahead of the launcher's; wanted at most 30"),
        (-4000.0, False, "clock of w1 is 4000.0 s behind of the launcher's; wanted at most 30"),
    ],
)
def test_clocks_that_differ_too_much_are_told(skew: float, said: str, *, ok: bool) -> None:
    found = clocks(skew, "w1")
    assert (found.ok, found.said) == (ok, said)
    assert found.ok or "NTP" in found.remedy


def test_a_skewed_worker_is_found_by_the_clock_of_the_storage(
    asked: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preflight.try_writing

    def skewed(probe: Probe) -> tuple[str, float | None]:
        said, clock = real(probe)
        worker_begun = "launcher" in probe.names
        return said, (clock or 0.0) + (90 if worker_begun else 0)

    monkeypatch.setattr(preflight, "try_writing", skewed)
    failed = heard(asked()).failed
    assert list(failed) == ["clocks"]
    assert "90.0 s ahead" in failed["clocks"].said


def test_what_was_begun_is_removed_when_the_process_must_end_early(
    asked: Callable[..., Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, teller = asked(), Heard()

    def interrupted(*_: object) -> None:
        assert given.probe.names == {"launcher"}
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_job(given, teller)
    assert not (tmp_path / "out").exists()
    (stop,) = teller.stops
    stop()  # twice is as good as once
