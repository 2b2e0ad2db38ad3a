"""One run at a time into one output: the first one wins, the other stops and names it."""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pipelines.lease import leased
from policy.errors import OutputInUse, shown
from transforms import bucket

LOCK = "_lock"


@contextmanager
def claimed(root: str) -> Iterator[str]:
    """Hold an output while the body runs; gives the run's own name, `host.pid.random`.

    On a local filesystem the kernel holds the lock and lets go of it however the process ends; on
    gs:// it is a lease that is renewed while the run lives. Other filesystems cannot tell who was
    first, and are not locked. Raises OutputInUse if another run holds the output.
    """
    run = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(8)}"
    owner = {"run": run, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    if root.startswith(bucket.SCHEME):
        with leased(f"{root}/{LOCK}", owner):
            yield run
    elif "://" in root:
        yield run
    else:
        with _locked(Path(root), owner):
            yield run


@contextmanager
def _locked(root: Path, owner: dict[str, str]) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    lock = root / LOCK
    with _held(lock) as file:
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):
                root.rmdir()  # a run that was refused leaves nothing


@contextmanager
def _held(lock: Path) -> Iterator[TextIO]:
    """The file of a lock, once it is ours."""
    while True:
        with lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise in_use(str(lock.parent), file.read()) from error
            if _is_there(file, lock):
                yield file
                return


def _is_there(file: TextIO, lock: Path) -> bool:
    """Whether this is still the file of that name: its last owner removed it at its end."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    return False


def in_use(root: str, owner: str) -> OutputInUse:
    """The error that names the run which holds an output, by what it wrote of itself."""
    try:
        found: Any = json.loads(owner)
        who = f"run {shown(found['run'])}, since {shown(found['since'])},"
    except (ValueError, TypeError, KeyError):
        who = "another run"
    return OutputInUse(
        f"{root}: {who} writes to this output; wait for its end, stop it, or choose another output"
    )
