"""What a shard is: a file of records, or a group of plain image files."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

_IDENTITY = re.compile(r"(?P<path>.*), \d+ bytes, (modified|generation) ", re.DOTALL)


@dataclass(frozen=True)
class ImageFile:
    """A plain image file of `bytes`, and the file with its label if there is one.

    `modified` is in seconds since 1970, 0 where unknown; `generation` and `label_generation` are
    what gs:// counts, 0 elsewhere.
    """

    path: str
    bytes: int
    modified: float
    label_path: str | None = None
    generation: int = 0
    label_bytes: int = 0
    label_generation: int = 0


@dataclass(frozen=True)
class Promise:
    """What a shard manifest says of a shard."""

    records: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One file of records. `name` is unique in a run and names the shard's outputs and keys.

    `bytes` and `modified` (seconds since 1970, 0 where unknown) tell a shard from one that was put
    in its place. In gs:// its `generation` does (0 elsewhere), and no other is read. With `files`,
    the shard is these files of the folder `path`.
    """

    name: str
    path: str
    bytes: int
    modified: float
    files: tuple[ImageFile, ...] = ()
    promise: Promise | None = None
    generation: int = 0

    @property
    def identity(self) -> str:
        """What must not change between the runs into one output."""
        modified = datetime.fromtimestamp(self.modified, UTC).isoformat(timespec="milliseconds")
        version = f"generation {self.generation}" if self.generation else f"modified {modified}"
        identity = f"{self.path}, {self.bytes} bytes, {version}"
        if self.files:
            digest = hashlib.sha256(repr(self.files).encode()).hexdigest()
            identity = f"{identity}, {len(self.files)} files {digest}"
        return identity


def path_of(identity: str) -> str:
    """The path of the shard that has this identity; empty where it is no shard's."""
    found = _IDENTITY.match(identity)
    return found["path"] if found else ""
