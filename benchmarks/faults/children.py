"""Running a command of adalabel in a fork of a process that has loaded everything already."""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch import cli

HANGS_SECONDS = 120.0
BROKEN = 70
"""The exit code of a child that ended with a traceback."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, and all that it printed."""

    code: int
    text: str


def command(arguments: list[str]) -> Callable[[], int]:
    """What a child does that runs a command of adalabel."""
    return lambda: cli.main(arguments)


def in_child(work: Callable[[], int], log: Path) -> Ended:
    """Run in a fork, with all that is printed going to `log`; killed if it hangs."""
    sys.stdout.flush()  # or the child would print what waits here once more, into its log
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _run(work, log)
    deadline = time.monotonic() + HANGS_SECONDS
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(-signal.SIGALRM, "hangs")
        time.sleep(0.002)


def _run(work: Callable[[], int], log: Path) -> None:
    """What the child does; never returns."""
    code = BROKEN
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        random.seed(0)  # Beam shuffles by it, so that shards come in the same order
        code = work()
    except BaseException:  # noqa: BLE001 - whatever it is belongs into the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
