"""One run at a time into one output: the first one wins, the other stops and names it."""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pipelines.lease import in_use, leased, this_machine
from policy.errors import InputError, shown
from transforms import bucket

LOCK = "_lock"

_MOST_TRIES = 1_000


_NEVER = {errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
"""What trying again does not mend."""


@contextmanager
def claimed(root: str) -> Iterator[str]:
    """Hold an output while the body runs; gives the run's own name, `host.pid.random`.

    On a local filesystem the kernel holds the lock and lets go of it however the process ends; on
    gs:// it is a lease that is renewed while the run lives. Other filesystems cannot tell who was
    first, and are not locked. Raises OutputInUse if another run holds the output.
    """
    run = f"{this_machine()}.{os.getpid()}.{secrets.token_hex(8)}"
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
    lock = root / LOCK
    with _held(lock) as file:
        try:
            file.truncate(0)
            file.write(json.dumps(owner).encode())
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(lock)) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):
                root.rmdir()  # a run that was refused leaves nothing


@contextmanager
def _held(lock: Path) -> Iterator[FileIO]:
    """The file of a lock, once it is ours."""
    while True:
        with _closed_at_end(_opened(lock)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise in_use(str(lock.parent), file.read().decode(errors="replace")) from error
            if _is_there(file, lock):
                yield file
                return


@contextmanager
def _closed_at_end(file: FileIO) -> Iterator[FileIO]:
    """Close a file whose content no longer matters, so that failing to is no failure."""
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


def _opened(lock: Path) -> FileIO:
    """The file of a lock, made with its folder where missing."""
    for _ in range(_MOST_TRIES):
        with suppress(FileExistsError, FileNotFoundError):  # a run that ended here removed it again
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                return FileIO(lock, "a+")
            except OSError as error:
                if error.errno in _NEVER:
                    raise no_folder(lock.parent, error.strerror) from error
                raise
    raise no_folder(lock.parent, os.strerror(errno.ENOTDIR))


def no_folder(root: Path, why: str | None) -> InputError:
    """The error that says what is wrong with an output's folder."""
    return InputError(
        f"{shown(root)}: cannot be an output: {why}; wanted a folder that can be written, or made"
    )


def _is_there(file: FileIO, lock: Path) -> bool:
    """Whether this is still the file of that name: its last owner removed it at its end."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    return False
