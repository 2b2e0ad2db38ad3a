import os

import pytest

from pipelines.options import MachineOptions, RunOptions
from policy.errors import InputError
from transforms.decode_limits import DecodeLimits
from transforms.work import usable_cores


@pytest.mark.parametrize("name", ["batch_size", "workers"])
@pytest.mark.parametrize("number", [0, -3])
def test_a_size_below_one_is_refused_by_the_name_of_its_flag(name: str, number: int) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} {number}: wanted at least 1"):
        RunOptions(**{name: number})


@pytest.mark.parametrize("name", ["decode_threads", "threads"])
def test_negative_threads_are_refused_by_the_name_of_their_flag(name: str) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} -1: wanted at least 0"):
        MachineOptions(**{name: -1})


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 1, 8), (8, 3, 2), (2, 5, 1)])
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: int
) -> None:
    monkeypatch.setattr("pipelines.options.usable_cores", lambda: cores)
    worker = RunOptions(workers=workers).worker
    assert (worker.threads, worker.decode_threads) == (threads, threads)
    assert MachineOptions().worker.threads == cores


def test_one_core_is_assumed_where_the_machine_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
    assert MachineOptions().worker.threads == 1


def test_a_worker_gets_what_was_asked_for() -> None:
    worker = MachineOptions(batch_size=3, decode_threads=5, threads=7, device="cuda:1").worker
    assert (worker.batch_size, worker.decode_threads) == (3, 5)
    assert (worker.threads, worker.device) == (7, "cuda:1")


def test_what_an_image_may_cost_reaches_the_worker() -> None:
    options = RunOptions(
        max_pixels=5, max_image_bytes=6, max_image_ratio=7, decode_seconds=8.0, isolate_decode=True
    )
    assert options.worker.limits == DecodeLimits(5, 6, 7, 8.0)
    assert options.worker.isolate_decode
    assert not MachineOptions().worker.isolate_decode


def test_limits_that_no_image_meets_are_refused() -> None:
    with pytest.raises(InputError, match="--max-pixels 0: wanted at least 1"):
        RunOptions(max_pixels=0)
