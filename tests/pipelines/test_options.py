import os

import pytest

from pipelines.options import MachineOptions, RunOptions
from policy.errors import InputError
from transforms.cores import usable_cores
from transforms.decode_limits import DecodeLimits


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


L4 = "type:nvidia-l4;count:1;install-nvidia-driver"


def test_only_workers_need_the_gpu_and_each_counts_its_own_cores() -> None:
    there = RunOptions(on="dataflow", device="cuda", accelerator=L4, min_ram="16GB")
    assert there.launcher.device == "cpu"
    assert (there.worker.device, there.worker.threads, there.worker.decode_threads) == (
        "cuda",
        0,
        0,
    )
    assert there.worker.hints == {"accelerator": L4, "min_ram": "16GB"}
    assert there.runner.accelerator == L4
    here = RunOptions(device="cuda:1")
    assert (here.launcher, here.worker.hints) == (here.worker, {})


@pytest.mark.parametrize(("flag", "value"), [("accelerator", L4), ("min_ram", "16GB")])
def test_machines_are_started_nowhere_else(flag: str, value: str) -> None:
    with pytest.raises(InputError, match=r"only --on dataflow starts machines; leave it out"):
        RunOptions(**{flag: value})


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("accelerator", "nvidia-l4"),
        ("accelerator", "type:nvidia-l4;count:0"),
        ("accelerator", "type:nvidia-l4;count:1;"),
        ("min_ram", "16"),
        ("min_ram", "lots"),
    ],
)
def test_machines_that_beam_cannot_ask_for_are_refused_with_an_example(
    flag: str, value: str
) -> None:
    with pytest.raises(
        InputError, match=rf"--{flag.replace('_', '-')} {value}: wanted (type:|16GB)"
    ):
        RunOptions(on="dataflow", **{flag: value})


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"accelerator": L4}])
def test_a_gpu_that_nobody_uses_or_nobody_starts_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="wanted both a GPU and --device cuda, or neither"):
        RunOptions(on="dataflow", **wrong)


def test_paths_of_this_machine_are_refused_where_no_worker_sees_them() -> None:
    RunOptions().check_reach(["labels"])
    there = RunOptions(on="dataflow")
    there.check_reach(["gs://bucket/labels"])
    with pytest.raises(InputError, match=r"labels is a path of this machine.*wanted gs://"):
        there.check_reach(["gs://bucket/a.tar", "labels"])
    cluster = RunOptions(on="flink")
    cluster.check_reach(["gs://bucket/a.tar", "/shared/labels"])
    with pytest.raises(
        InputError, match=r"flink b\.tar: .* other working folders .* the whole path"
    ):
        cluster.check_reach(["/shared/a.tar", "b.tar"])  # as a list file may name it
