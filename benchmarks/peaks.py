"""Running a command of the product; the most memory it and its workers held. Linux only."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.photographs import ENVIRONMENT, ROOT

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Ran:
    """What a command said, and the most memory it and the largest process below it held, in MB."""

    said: Any
    peak_mb: float
    worker_mb: float


def run(*arguments: str) -> Ran:
    """Run a command of the product in a process of its own."""
    command = [sys.executable, "-m", "launch.cli", *arguments, "--json"]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=errors
        )
        peaks = {process.pid: 0.0}
        while process.poll() is None:
            for found in filter(is_ours, tree(process.pid)):
                peaks[found] = max(peaks.get(found, 0.0), peak_mb(found))
            time.sleep(_LOOK_SECONDS)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"exit code {process.returncode}: {' '.join(command)}\n{errors.read()!r}")
        output.seek(0)
        own = peaks.pop(process.pid)
        return Ran(json.loads(output.read()), own, max(peaks.values(), default=0.0))


def tree(process: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        below = " ".join((task / "children").read_text() for task in tasks)
    except OSError:  # it has ended meanwhile
        return []
    return [process, *(found for child in below.split() for found in tree(int(child)))]


def is_ours(process: int) -> bool:
    """Whether a process runs the command or a worker; not what is just being started by one."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
        return command != Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False


def peak_mb(process: int) -> float:
    """The most memory that a process held since it began to run its program; 0 if it has ended.

    Not ru_maxrss, which begins with what the process that started it had held.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found else 0.0
