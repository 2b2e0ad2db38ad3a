"""Servers that a test starts: children that the kernel ends when the test's process does."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
START_SECONDS = 300
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start(folder: Path, name: str, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
    """Start a child that ends with this process; what it says goes to NAME.log."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - nothing else runs between fork and exec
        )


def write_command(script: Path, module: str) -> None:
    """A module of this tree and interpreter as a command, one word."""
    script.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} -m {module} "$@"\n'
    )
    script.chmod(0o700)


def end_with_parent() -> None:
    """What a child does first: leave the terminal, and ask to end when its parent does."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for pytest, which then ends them in order
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a child, gently if it lets us."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(what: str, found: Callable[[], Any]) -> Any:
    """Wait for something that starts; raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if answer := found():
                return answer
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.2)
    message = f"{what}: not there after {START_SECONDS} s"
    raise TimeoutError(message)


def listens(port: int) -> bool:
    """Whether somebody does at this port; raises OSError where nobody does."""
    socket.create_connection((LOOPBACK, port), 5).close()
    return True


def asked(url: str) -> Any:
    """What an HTTP server on the loopback says, as JSON."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
        return json.load(answer)
