from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tiny
from apache_beam.testing.util import assert_that, equal_to

from launch.runners import local
from policy.errors import InputError
from transforms import preflight
from transforms.findings import Finding, Told, told
from transforms.networks_file import read_networks
from transforms.output_probe import Probe, write_launcher
from transforms.preflight import Preflight, Wanted, probe_output, worker_findings
from transforms.preflight_checks import versions
from transforms.shards import match_shards
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=1, threads=1, device="cpu")


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    networks = read_networks(str(tiny.write_networks(tmp_path / "networks")))
    tar = tiny.write_tar(tmp_path / "s.tar", tiny.image_members(np.random.default_rng(0), 1))
    (shard,) = match_shards([str(tar)])
    probe = Probe.of(str(tmp_path / "out"))
    return Wanted(versions(), WORKER, probe, networks=networks, shard=shard)


def by_name(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_everything_is_tried_and_reported_in_the_output(wanted: Wanted) -> None:
    write_launcher(wanted.probe)
    report = probe_output(wanted, "w1")
    checks = [
        "versions",
        "torch",
        "network small",
        "network big",
        "input",
        "output is shared",
        "output",
    ]
    assert [finding.check for finding in report.findings if finding.ok] == checks
    assert report.clock_seconds == pytest.approx(0, abs=5)
    assert len(wanted.probe.names) == 2  # the launcher's, and the report


def test_a_worker_with_a_disk_of_its_own_says_so_and_leaves_nothing(
    wanted: Wanted, tmp_path: Path
) -> None:
    write_launcher(wanted.probe)
    alone = replace(wanted, probe=replace(wanted.probe, root=f"{tmp_path}/container/out"))
    with pytest.raises(Told) as caught:
        probe_output(alone, "w1")
    (report,) = told(str(caught.value))
    shared = by_name(report.findings)["output is shared"]
    assert "of worker w1 is not" in shared.said
    assert "where they are lost" in shared.said
    assert "gs://" in shared.remedy
    assert by_name(report.findings)["output"].ok  # that alone would look good
    assert not (tmp_path / "container").exists()


def test_a_worker_that_cannot_write_tells_all_it_found(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_launcher(wanted.probe)

    def refused(_probe: Probe) -> None:
        raise PermissionError(13, "Permission denied", "/out")

    monkeypatch.setattr(preflight, "try_writing", refused)
    monkeypatch.setattr(preflight, "_reported", refused)
    monkeypatch.setattr(preflight, "_reported", lambda probe, _: refused(probe))
    with pytest.raises(Told) as caught:
        probe_output(wanted, "w1")
    found = by_name(told(str(caught.value))[0].findings)
    assert found["output"].said == "/out: Permission denied"
    assert "right to write" in found["output"].remedy
    assert found["versions"].ok
    assert wanted.probe.names == {"launcher"}


def test_where_the_launcher_could_not_write_the_worker_does_not_look(wanted: Wanted) -> None:
    with pytest.raises(Told) as caught:
        probe_output(replace(wanted, begun=False), "w1")
    found = by_name(told(str(caught.value))[0].findings)
    assert "output is shared" not in found
    assert found["output"].ok
    assert not Path(wanted.probe.root).exists()


def test_a_failed_check_stops_no_other(wanted: Wanted, tmp_path: Path) -> None:
    (tmp_path / "networks/small.safetensors").unlink()
    (tmp_path / "s.tar").unlink()
    found = by_name(tuple(worker_findings(replace(wanted, versions={"torch": "1.0"}))))
    assert {check for check, finding in found.items() if not finding.ok} == {
        "versions",
        "network small",
        "input",
    }
    assert "the launcher has 1.0" in found["versions"].said
    assert found["network big"].ok
    assert "put both where it sees them" in found["network small"].remedy
    assert found["input"].exit_code == 2


def test_without_torch_nothing_is_tried_that_needs_it(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise InputError("torch cannot be imported: No module named 'torch'")

    monkeypatch.setattr(preflight, "torch_imports", missing)
    found = by_name(tuple(worker_findings(wanted)))
    assert list(found) == ["versions", "torch", "input"]
    assert not found["torch"].ok


def test_networks_are_tried_on_the_cpu_where_the_gpu_is_missing(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(device: str) -> str:
        raise InputError(f"--device {device}: none")

    monkeypatch.setattr(preflight, "gpu", missing)
    on_gpu = replace(wanted, worker=replace(WORKER, device="cuda"))
    found = by_name(tuple(worker_findings(on_gpu)))
    assert not found["gpu"].ok
    assert " on cpu in " in found["network small"].said


def test_without_a_networks_file_that_can_be_read_the_rest_is_tried(wanted: Wanted) -> None:
    found = by_name(tuple(worker_findings(replace(wanted, networks=None))))
    assert list(found) == ["versions", "torch", "input"]


def test_the_step_gives_the_host_that_answered(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "w7")
    write_launcher(wanted.probe)
    with beam.Pipeline(argv=local(1)) as pipeline:
        assert_that(pipeline | Preflight(wanted), equal_to(["w7"]))
