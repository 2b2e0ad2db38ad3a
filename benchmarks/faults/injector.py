"""Faults in file operations: the C library beside this file, compiled, loaded and armed."""

import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("inject.c")
_RANDOM = re.compile(r"[0-9a-f]{16}|[^/ ]+\.\d+\.(?=R)|(?<=_attempts/)[^/]+")


@dataclass(frozen=True)
class Fault:
    """What happens at an operation: `how` is that of inject.c, `error` an errno or 0."""

    name: str
    how: int
    error: int = 0


KILLS = (Fault("killed before", 1), Fault("killed after", 2))
HALF = Fault("killed with half of it written", 3)
FAILURES = (Fault("ENOSPC", 4, errno.ENOSPC), Fault("EIO", 4, errno.EIO))
NONE = Fault("none", 0)


def faults_for(operation: str) -> tuple[Fault, ...]:
    """All that can happen at an operation: a write can also be cut in the middle."""
    half = (HALF,) if operation.startswith("write ") else ()
    return (*KILLS, *half, *FAILURES)


def compiler() -> str | None:
    """The C compiler, where there is one and libraries can be put before libc."""
    return shutil.which("cc") if sys.platform == "linux" else None


def preloaded(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start this Python again with the library, which is compiled into `folder`."""
    library = folder / "inject.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)  # noqa: S603 - our own file
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment)  # noqa: S603


def is_preloaded() -> bool:
    """Whether this process has the library."""
    return "inject.so" in os.environ.get("LD_PRELOAD", "")


def arm(folder: Path, number: int, fault: Fault, trace: Path | None = None) -> None:
    """From now on count operations below a folder; at operation `number`, from 1, the fault."""
    handle = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if trace else -1
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.inject_arm(str(folder).encode(), number, fault.how, fault.error, handle)


def operations(trace: Path) -> list[str]:
    """The operations of a trace, each with its file, without the random parts of names."""
    return [_RANDOM.sub("R", line) for line in trace.read_text().splitlines()]
