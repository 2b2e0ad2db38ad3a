"""Running a batch so that one bad item costs one row, and too little memory costs only speed.

An error is one of three kinds. Too little memory: the batch is halved, and the size that fitted is
kept for all later batches of that stage. A lost device: nothing can be run in this process again,
so it ends. Any other: the batch is halved until the items that fail alone are known; they become
rows with a reason. When `MOST_IN_A_ROW` items of a stage fail one after the other, it is the
network that is wrong and not the items, and the job stops.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import torch

from policy.errors import InputError, Stopped, Unavailable, shown
from policy.rows import NETWORK
from transforms.decode_limits import BadImage

T = TypeVar("T")

MOST_IN_A_ROW = 8
"""So many items that fail alone, with none between that succeeds, stop the job.

Fewer become rows, even if they are all there are: the network has run on the probe images before,
so it is not wrong for every image.
"""

_LOG = logging.getLogger("adalabel")

_MEMORY = re.compile(
    r"(?i)out of memory|(can't|cannot|could not|failed to) allocate|alloc_failed|not enough memory"
    r"|bad_alloc|could not create a (primitive|memory)"  # the latter two are oneDNN's
)
_LOST = re.compile(
    r"(?i)device-side assert|illegal (memory access|instruction|address)|misaligned address"
    r"|unspecified launch failure|launch timed out|\becc\b|device (is )?lost|fallen off the bus"
    r"|context is destroyed|hardware stack|nvlink|cuda error:|cudnn_status_execution_failed"
)

_WORKER = "apache_beam.runners.worker.sdk_worker_main"


class DeviceLost(Unavailable):
    """The device cannot be used by this process any more; a new process can try again."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """What was made of the items from number `start` on, up to `stop`."""

    start: int
    stop: int
    value: T


@dataclass(frozen=True)
class Failure:
    """The item of this number fails alone: the status and the error of its row."""

    row: int
    status: str
    error: str


class Careful:
    """Runs stages on batches, and remembers by stage the size that fitted into memory."""

    def __init__(self, device: str, leave: Callable[[str], None] | None = None) -> None:
        """`device` is named in errors; `leave` may end the process when the device is lost."""
        self.device = device
        self.leave = leave or leave_worker
        self.fits: dict[str, int] = {}
        self._in_a_row: dict[str, int] = {}

    def run(
        self, stage: str, n: int, work: Callable[[int, int], T]
    ) -> tuple[list[Part[T]], list[Failure]]:
        """Do `work(start, stop)` for all of n items, in one call where that goes well.

        Parts and failures are each in order, and together hold every item once. Raises DeviceLost,
        and InputError when it is the stage that fails and not an item.
        """
        parts: list[Part[T]] = []
        failures: list[Failure] = []
        waiting = [(0, n)] if n else []
        while waiting:
            start, stop = waiting.pop()
            middle = start + self.fits.get(stage, n)
            if middle >= stop:
                done = _tried(work, start, stop)
                if isinstance(done, Part):
                    self._in_a_row[stage] = 0
                    parts.append(done)
                    continue
                if stop - start == 1:
                    failures.append(self._failure(stage, start, done))
                    continue
                middle = start + self._half(stage, stop - start, done)
            waiting += [(middle, stop), (start, middle)]
        return parts, failures

    def wait(self, stage: str, work: Callable[[], T]) -> T:
        """Wait for what `run` began on the device. Raises DeviceLost."""
        try:
            return work()
        except Exception as error:
            if is_lost(error):
                self._lost(stage, error)
            raise

    def _half(self, stage: str, size: int, error: Exception) -> int:
        """How many items to try next, when so many failed."""
        half = size // 2
        if self._is_memory(stage, error):
            if stage not in self.fits:
                _LOG.warning(
                    "%s: too little memory on %s for a batch of %d; going on with smaller ones: %s",
                    *(stage, self.device, size, shown(error)),
                )
            self.fits[stage] = half
        return half

    def _failure(self, stage: str, row: int, error: Exception) -> Failure:
        """The row of an item that fails alone; raises InputError where too many do."""
        memory = self._is_memory(stage, error)
        if isinstance(error, BadImage):
            return Failure(row, error.status, str(error))
        said = f"{type(error).__name__}: {shown(error)}"
        self._in_a_row[stage] = self._in_a_row.get(stage, 0) + 1
        if self._in_a_row[stage] >= MOST_IN_A_ROW:
            raise InputError(
                f"{stage} fails on {MOST_IN_A_ROW} images in a row, each alone, so the network is "
                f"taken to be wrong and not the images; the last with {said}. Mend the network, or "
                "leave these images out."
            )
        reason = "too little memory for it alone: " if memory else ""
        return Failure(row, NETWORK, f"{stage} fails: {reason}{said}")

    def _is_memory(self, stage: str, error: Exception) -> bool:
        """Whether there was too little memory; does not come back from a lost device."""
        memory = is_memory(error)
        if not memory and is_lost(error):
            self._lost(stage, error)
        if memory and torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # pieces of other sizes than the smaller batch needs
        return memory

    def _lost(self, stage: str, error: Exception) -> NoReturn:
        message = (
            f"{stage}: {self.device} is lost: {shown(error)} Run the same command again; it goes "
            "on where this one stopped. If it comes back, look at nvidia-smi and the system's log, "
            "or set CUDA_LAUNCH_BLOCKING=1 to see which operation it is."
        )
        self.leave(message)
        raise DeviceLost(message)


def _tried(work: Callable[[int, int], T], start: int, stop: int) -> Part[T] | Exception:
    """What was made, or what was raised, without the frames that would hold on to the tensors."""
    try:
        return Part(start, stop, work(start, stop))
    except (InputError, Stopped):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a network, or the library below it, raises
        return error.with_traceback(None)


def is_memory(error: Exception) -> bool:
    """Whether an error says that there was too little memory, on the device or on the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def is_lost(error: Exception) -> bool:
    """Whether the device cannot be used any more by this process: CUDA contexts do not recover."""
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def leave_worker(message: str) -> None:
    """End this process if a runner started it and starts another in its place; else return.

    Beam would catch an exception and try the next bundle in the same process, on the same dead
    device. On one's own machine nobody starts another: there the exception ends the job.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or main.name != _WORKER or _is_local():
        return
    sys.stderr.write(f"adalabel: {message}\n")
    sys.stderr.flush()
    os._exit(Unavailable.exit_code)


def _is_local() -> bool:
    """Whether the local runner started this worker: it would wait for it for ever."""
    return "FnApiRunner" in os.environ.get("PIPELINE_OPTIONS", "")
