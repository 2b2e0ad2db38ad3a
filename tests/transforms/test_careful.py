"""What becomes of a batch in which something fails, without a network and without a GPU."""

import logging
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import InputError, Unavailable
from policy.rows import NETWORK
from transforms import careful as module
from transforms.careful import MOST_IN_A_ROW, Careful, DeviceLost, is_lost, is_memory
from transforms.images import BadImage

Work = Callable[[int, int], list[int]]


def failing(bad: Collection[int], calls: list[tuple[int, int]] | None = None) -> Work:
    """Gives the numbers of the items; raises where one of them is bad."""

    def work(start: int, stop: int) -> list[int]:
        if calls is not None:
            calls.append((start, stop))
        if any(start <= item < stop for item in bad):
            raise ValueError("a marked pixel")
        return list(range(start, stop))

    return work


def short_of_memory(most: int, calls: list[int], error: Exception) -> Work:
    def work(start: int, stop: int) -> list[int]:
        calls.append(stop - start)
        if stop - start > most:
            raise error
        return list(range(start, stop))

    return work


def test_a_batch_that_goes_well_is_one_call() -> None:
    calls: list[tuple[int, int]] = []
    parts, failures = Careful("cpu").run("net", 64, failing((), calls))
    assert calls == [(0, 64)]
    assert [part.value for part in parts] == [list(range(64))]
    assert failures == []


def test_nothing_is_run_for_no_items() -> None:
    assert Careful("cpu").run("net", 0, failing((0,))) == ([], [])


@given(n=st.integers(1, 100), bad=st.sets(st.integers(0, 99)), most=st.integers(1, 100))
def test_every_item_comes_out_once_in_order(n: int, bad: set[int], most: int) -> None:
    bad = {item for item in bad if item < n}
    longest = max(
        (len(run) for run in "".join("x" if i in bad else " " for i in range(n)).split()), default=0
    )
    calls: list[int] = []
    sized = short_of_memory(most, calls, torch.OutOfMemoryError("CUDA out of memory"))

    def work(start: int, stop: int) -> list[int]:
        sized(start, stop)
        return failing(bad)(start, stop)

    if longest >= MOST_IN_A_ROW:
        with pytest.raises(InputError, match="fails on 8 images in a row"):
            Careful("cuda").run("net", n, work)
        return
    parts, failures = Careful("cuda").run("net", n, work)
    assert [failure.row for failure in failures] == sorted(bad)
    assert [item for part in parts for item in part.value] == sorted(set(range(n)) - bad)
    assert all(part.value == list(range(part.start, part.stop)) for part in parts)


def test_an_item_that_fails_alone_has_a_reason_that_can_be_shown() -> None:
    def work(start: int, stop: int) -> None:
        if start <= 3 < stop:
            raise ValueError("bad\x1b[31m" + "x" * 1000)

    _, (failure,) = Careful("cpu").run("big", 16, work)
    assert (failure.row, failure.status) == (3, NETWORK)
    assert failure.error.startswith("big fails: ValueError: bad\\x1b[31mxxx")
    assert len(failure.error) < 500


def test_an_image_that_cannot_be_fitted_keeps_its_own_status() -> None:
    def work(start: int, stop: int) -> None:
        if start <= 3 < stop:
            raise BadImage("too_large", "beyond all bounds")

    _, (failure,) = Careful("cpu").run("big", 16, work)
    assert (failure.status, failure.error) == ("too_large", "beyond all bounds")


def test_one_bad_item_is_found_in_few_runs() -> None:
    calls: list[tuple[int, int]] = []
    Careful("cpu").run("net", 64, failing((37,), calls))
    assert len(calls) == 13  # the batch, then two halves each of six times


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate me"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
    ids=str,
)
def test_too_little_memory_halves_the_batch_and_the_size_is_remembered(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    careful, calls = Careful("cuda:1"), []
    work = short_of_memory(5, calls, error)
    with caplog.at_level(logging.WARNING, "adalabel"):
        parts, failures = careful.run("net", 16, work)
        assert calls == [16, 8, 4, 4, 4, 4]
        calls.clear()
        careful.run("net", 10, work)
        assert calls == [4, 4, 2]
        calls.clear()
        careful.run("other", 5, work)
        assert calls == [5]
    assert [item for part in parts for item in part.value] == list(range(16))
    assert failures == []
    (said,) = caplog.messages
    assert said.startswith("net: too little memory on cuda:1 for a batch of 16; going on with")
    assert is_memory(error)
    assert not (is_lost(error) and not is_memory(error))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("")])
def test_an_item_too_large_for_memory_alone_is_a_row(error: Exception) -> None:
    def work(start: int, stop: int) -> None:
        if start <= 1 < stop:
            raise error

    parts, (failure,) = Careful("cuda").run("net", 4, work)
    assert [(part.start, part.stop) for part in parts] == [(0, 1), (2, 3), (3, 4)]
    assert (failure.row, failure.status) == (1, NETWORK)
    assert failure.error.startswith("net fails: too little memory for it alone: ")


LOST = [
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: unspecified launch failure",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "device lost",
]


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
@pytest.mark.parametrize("text", LOST)
def test_a_lost_device_ends_at_once_and_is_named(text: str, kind: type[RuntimeError]) -> None:
    calls: list[int] = []
    left: list[str] = []
    careful = Careful("cuda:1", left.append)
    with pytest.raises(DeviceLost, match=r"net: cuda:1 is lost: .*Run the same command again") as e:
        careful.run("net", 64, short_of_memory(0, calls, kind(text)))
    assert calls == [64]
    assert left == [str(e.value)]
    assert (e.value.exit_code, isinstance(e.value, Unavailable)) == (5, True)
    assert "\n" not in str(e.value)


def test_an_ordinary_error_is_neither_memory_nor_a_lost_device() -> None:
    for error in (ValueError("out of memory"), RuntimeError("mat1 and mat2 shapes cannot be mult")):
        assert not is_memory(error)
        assert not is_lost(error)


def test_too_many_that_fail_in_a_row_stop_the_job_across_batches() -> None:
    careful = Careful("cpu")
    _, failures = careful.run("net", 7, failing(range(7)))
    assert len(failures) == 7  # even if they are all there are
    with pytest.raises(
        InputError,
        match="net fails on 8 images in a row, each alone, so the network is taken to be",
    ):
        careful.run("net", 1, failing([0]))


def test_one_that_succeeds_or_another_stage_ends_the_row() -> None:
    careful = Careful("cpu")
    for _ in range(5):
        careful.run("net", 8, failing(range(1, 8)))
        careful.run("other", 7, failing(range(7)))
        careful.run("other", 1, failing(()))


def test_a_wrong_input_or_a_stop_is_nobodys_row() -> None:
    calls: list[int] = []
    for error in (InputError("head: fitted on 7"), Unavailable("disk")):
        with pytest.raises(type(error), match=str(error)):
            Careful("cpu").run("net", 8, short_of_memory(0, calls, error))
    assert calls == [8, 8]


WORKER = """
import sys, types
sys.modules["__main__"].__spec__ = types.SimpleNamespace(name={name!r})
from transforms.careful import Careful
def work(start, stop):
    raise RuntimeError("CUDA error: device-side assert triggered")
try:
    Careful("cuda").run("net", 4, work)
finally:
    print("cleaned up")
"""


@pytest.mark.parametrize(
    ("name", "runner", "code"),
    [
        (module._WORKER, "DataflowRunner", 5),
        (module._WORKER, "apache_beam.runners.portability.fn_api_runner.FnApiRunner", 1),
        ("launch.cli", "DataflowRunner", 1),
    ],
)
def test_a_worker_that_another_replaces_ends_and_all_else_raises(
    name: str, runner: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER.format(name=name)],
        env={"PIPELINE_OPTIONS": f'{{"runner": "{runner}"}}', "PYTHONPATH": ":".join(sys.path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "net: cuda is lost: CUDA error: device-side assert triggered" in done.stderr
    assert ("cleaned up" in done.stdout) == (code == 1)
