"""gs:// objects as files: found by a pattern, and read at one generation, never parts of two."""

import errno
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam.io.filesystem import FileSystem
from google.api_core.exceptions import NotFound
from google.cloud.storage import Blob

from policy.errors import InputError, Unavailable, shown
from transforms import bucket

BLOCK_BYTES = 8 << 20
"""How much of an object one request asks for."""

PAGE_SIZE: int | None = None
"""Objects in one answer to a listing; None: as many as the service likes, 1,000."""

_FIELDS = "items(name,size,updated,generation),nextPageToken"
_FIXED = re.compile(r"(?:[^*?[]|\[[*?[]\])*")  # [*] is a star
_ESCAPED = re.compile(r"\[([*?[])\]")


@dataclass(frozen=True)
class Object:
    """An object of `bytes`, `modified` in seconds since 1970."""

    path: str
    bytes: int
    modified: float
    generation: int


def matched(pattern: str) -> Iterator[Object]:
    """The objects of a path or a glob, in the order of their names: ** crosses folders, * does not.

    Raises InputError if there is no such bucket.
    """
    if pattern.endswith("/"):
        pattern += "*"
    name, _, rest = pattern.removeprefix(bucket.SCHEME).partition("/")
    fixed = _FIXED.match(rest)
    start = fixed[0] if fixed else ""
    prefix, wild = _ESCAPED.sub(r"\1", start), rest[len(start) :]
    if not wild:
        found = bucket.stat(f"{bucket.SCHEME}{name}/{prefix}")
        yield from [_object(name, found)] if found else []
        return
    wanted = re.compile(FileSystem.translate_pattern(pattern))
    one_level = "/" not in wild and "**" not in wild
    for found in _listed(name, prefix, "/" if one_level else None):
        if wanted.match(found.path):
            yield found


def _listed(name: str, prefix: str, delimiter: str | None) -> Iterator[Object]:
    """All objects whose names begin so; behind a delimiter, only those of that folder itself."""
    where = f"{bucket.SCHEME}{name}/{prefix}"
    try:
        with bucket.asked(where):
            for blob in bucket.client().list_blobs(
                name,
                prefix=prefix,
                delimiter=delimiter,
                fields=_FIELDS,
                page_size=PAGE_SIZE,
                **bucket.how(),
            ):
                yield _object(name, blob)
    except NotFound as error:
        raise InputError(
            f"{shown(where)}: there is no bucket {shown(name)!r}, or it may not be seen; correct "
            "the path"
        ) from error


def _object(name: str, blob: Blob) -> Object:
    path = f"{bucket.SCHEME}{name}/{blob.name}"
    return Object(path, int(blob.size), blob.updated.timestamp(), int(blob.generation))


class PinnedObject(io.RawIOBase):
    """One generation of an object, read in ranges; Unavailable where it was overwritten."""

    def __init__(self, path: str, size: int, generation: int) -> None:
        """Read this generation, of `size` bytes; whether it still is there shows as it is read."""
        super().__init__()
        self.path = path
        self.size = size
        self.generation = generation
        self._blob = bucket.blob_of(path, generation)
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, from the start, from here or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base says Any
        """Fill the buffer, or as much of it as there is left."""
        end = min(self._position + len(buffer), self.size)
        if end <= self._position:
            return 0
        content = self._range(self._position, end)
        buffer[: len(content)] = content
        self._position = end
        return len(content)

    def _range(self, start: int, end: int) -> bytes:
        try:
            with bucket.asked(self.path):
                content: bytes = self._blob.download_as_bytes(
                    start=start, end=end - 1, raw_download=True, checksum=None, **bucket.how()
                )
        except NotFound as error:
            raise _overwritten(self.path, self.generation, bucket.stat(self.path)) from error
        if len(content) != end - start:
            raise Unavailable(
                f"{shown(self.path)}: {len(content)} bytes came of {end - start} from byte {start} "
                "on; run the same command again"
            )
        return content


def opened(path: str, size: int = 0, generation: int = 0) -> io.BufferedReader:
    """An object as a file: this generation, of `size` bytes, or without one what there is now.

    Raises FileNotFoundError if there is nothing now.
    """
    if not generation:
        found = bucket.stat(path)
        if found is None:
            raise _none(path)
        size, generation = int(found.size), int(found.generation)
    return io.BufferedReader(PinnedObject(path, size, generation), buffer_size=BLOCK_BYTES)


def read_whole(path: str) -> bytes:
    """All of an object, in one request; raises FileNotFoundError if there is none."""
    found = bucket.read(path)
    if found is None:
        raise _none(path)
    return found[0]


def _none(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _overwritten(path: str, generation: int, now: Blob | None) -> Unavailable:
    there = f"generation {now.generation}" if now else "none"
    return Unavailable(
        f"{shown(path)}: was overwritten or deleted: generation {generation} was to be read, now "
        f"there is {there}. Run the same command again, which takes what there is then."
    )
