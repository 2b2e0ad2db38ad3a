"""Trying an output from two sides: who writes there must see what the other wrote.

A worker that writes to the disk of its own container, and not to storage that it shares with the
launcher, finishes without an error, and its labels are gone. So each side writes, and looks for the
other's. All of it lies in one folder of its own below the output, which is removed.
"""

import re
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError
from transforms.commit import Output, existing

FOLDER = "_preflight."
LAUNCHER = "launcher"
WORKER = "worker."
_PROBE_BYTES = 1 << 20
"""So much must fit on the disk, and pass the network."""


@dataclass(frozen=True)
class Probe:
    """What one check may touch of an output: the folder that its token names."""

    root: str
    token: str

    @classmethod
    def of(cls, root: str) -> "Probe":
        """A probe that no other check shares."""
        return cls(root.rstrip("/"), secrets.token_hex(8))

    @property
    def folder(self) -> str:
        """Where everything of this check lies, files in the making too."""
        return f"{self.root}/{FOLDER}{self.token}"

    @property
    def output(self) -> Output:
        """The folder as a run writes to an output."""
        return Output(self.folder, "attempt")

    @property
    def names(self) -> set[str]:
        """What lies in the folder."""
        return existing(self.folder, "")


def missing_folders(root: str) -> tuple[Path, ...]:
    """The folders that writing to a local output would make, deepest first."""
    if "://" in root:
        return ()
    path = Path(root).absolute()
    return tuple(folder for folder in (path, *path.parents) if not folder.exists())


def write_launcher(probe: Probe) -> float | None:
    """The launcher's file; returns our clock less the file system's, in seconds."""
    probe.output.create(LAUNCHER, probe.token.encode())
    return _clock(probe, LAUNCHER)


def sees_launcher(probe: Probe) -> bool:
    """Whether the launcher's file is listed here, with its content."""
    if LAUNCHER not in probe.names:
        return False
    return probe.output.read(LAUNCHER, "the launcher's probe") == probe.token.encode()


def try_writing(probe: Probe) -> tuple[str, float | None]:
    """Write, list, read back, write on a condition, replace and remove a file of our own.

    Returns what was found, and our clock less the file system's. Raises InputError if the place
    does not do as an output must, and what the file system raises.
    """
    output, name = probe.output, f"try.{secrets.token_hex(4)}"
    content = name.encode() * (_PROBE_BYTES // len(name))
    if not output.create(name, content):
        raise _unfit(probe, "a file of a new name was there already")
    clock = _clock(probe, name)
    if name not in probe.names:
        raise _unfit(probe, "a file that was just written is not listed")
    if output.create(name, b"another") or output.read(name, "the probe") != content:
        raise _unfit(probe, "a file that stood was written over, although it must not be")
    output.replace(name, b"replaced")
    if output.read(name, "the probe") != b"replaced":
        raise _unfit(probe, "a file that was replaced still has its old content")
    output.delete(name)
    if name in probe.names:
        raise _unfit(probe, "a file that was removed is still listed")
    return f"{probe.root}: written, listed, read, kept, replaced, removed{_room(probe)}", clock


def _unfit(probe: Probe, what: str) -> InputError:
    return InputError(f"{probe.root}: {what}, so two runs or workers cannot be kept apart there")


def _room(probe: Probe) -> str:
    """The free space of a local filesystem, in words."""
    if "://" in probe.root:
        return ""
    return f"; {shutil.disk_usage(probe.folder).free / 1e9:.1f} GB free"


def _clock(probe: Probe, name: str) -> float | None:
    """Our clock less that of the file system, seconds; of a file that was written just now."""
    now = time.time()
    path = re.sub(r"[*?[]", r"[\g<0>]", f"{probe.folder}/{name}")
    (match,) = FileSystems.match([path])
    times = [found.last_updated_in_seconds for found in match.metadata_list]
    return now - times[0] if times and times[0] else None


def remove(probe: Probe, made: Sequence[Path]) -> str:
    """Remove everything of a check, and the folders that were made for it if they are empty.

    Returns what was removed. Raises InputError if something stays, and what the file system raises.
    """
    if "://" in probe.root:
        probe.output.delete_folder("")
        return probe.folder
    shutil.rmtree(probe.folder, ignore_errors=True)
    for folder in made:
        with suppress(OSError):
            folder.rmdir()
    if Path(probe.folder).exists():
        raise InputError(f"{probe.folder}: cannot be removed")
    return probe.folder
