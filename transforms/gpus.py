"""Which GPU of a machine is whose: each process that asks takes one that nobody else has.

Beam starts workers, one process each, and tells them nothing of the others. So a process locks a
file that stands for its GPU; the kernel lets go of it when the process ends, however it ends.
"""

import fcntl
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from policy.errors import InputError

if TYPE_CHECKING:  # who only looks for what is missing here does without
    import torch

_MOST = 16
"""Processes that share a GPU; more are a mistake."""


def usable_device(name: str) -> "torch.device":
    """The device of this name; raises InputError if torch cannot use it."""
    import torch  # noqa: PLC0415 - see above

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: not a device; wanted cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: not supported; wanted cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs "
            "here. Run where there is one, check the driver with nvidia-smi, or use --device cpu."
        )
    return device


def own_device(name: str) -> str:
    """The device for this process: for cuda, the GPU that it takes; any other, as it is named."""
    several = name == "cuda" and _count() > 1
    return f"cuda:{_taken()}" if several else name


def _count() -> int:
    import torch  # noqa: PLC0415 - see above

    return torch.cuda.device_count()


@cache
def _taken() -> int:
    folder = Path(tempfile.gettempdir()) / f"adalabel-gpus-{os.getuid()}"
    return take(_count(), folder)


def take(gpus: int, folder: Path) -> int:
    """Take one of so many GPUs, as long as this process lives: the first that nobody else has.

    Where there are more processes than GPUs, the others share them, each as few as can be.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for sharing in range(_MOST):
        for gpu in range(gpus):
            file = os.open(folder / f"{gpu}.{sharing}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
            else:
                return gpu  # the file stays open, and so locked
    raise InputError(
        f"{gpus} GPUs, and each has {_MOST} processes already (locks in {folder}); "
        "wanted one worker for each GPU: start fewer"
    )
