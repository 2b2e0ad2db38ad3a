from pathlib import Path

import pytest

from policy.errors import InputError
from transforms import cores
from transforms.cores import PROCESSES, cores_of_one, usable_cores
from transforms.work import WorkerOptions


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8), ("?", 8)],
)
def test_a_containers_quota_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: int
) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(said)
    assert usable_cores(tmp_path / "cpu.max") == wanted
    assert usable_cores(tmp_path / "none") == 8


@pytest.mark.parametrize(("processes", "wanted"), [(None, 8), ("3", 2), ("20", 1)])
def test_a_worker_takes_its_share_of_the_machine_it_is_on(
    monkeypatch: pytest.MonkeyPatch, processes: str | None, wanted: int
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    monkeypatch.delenv(PROCESSES, raising=False)
    if processes:
        monkeypatch.setenv(PROCESSES, processes)
    assert cores_of_one() == wanted
    assert WorkerOptions(1, 0, 0, "cpu").here() == WorkerOptions(1, wanted, wanted, "cpu")
    assert WorkerOptions(1, 5, 7, "cpu").here() == WorkerOptions(1, 5, 7, "cpu")


@pytest.mark.parametrize("said", ["0", "two", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(PROCESSES, said)
    with pytest.raises(InputError, match=f"{PROCESSES}={said}: wanted a number of processes"):
        cores_of_one()
