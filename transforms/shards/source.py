"""Opening shards so that a failing read is never mistaken for damaged data."""

import io
from typing import BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


class ReadFailed(Exception):  # noqa: N818 - what happened, not that it is an error, matters
    """The file system failed (not the data): the run must stop, so that the shard is tried again.

    Not an OSError, because readers of containers raise those for damaged data.
    """


class _Faithful(io.RawIOBase):
    """Hands reads on, and turns their OSError into ReadFailed."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base says Any
        try:
            content = self.file.read(len(buffer))
        except OSError as error:
            raise ReadFailed(f"{self.path}: reading failed: {error}") from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            self.file.seek(offset, whence)
            return self.file.tell()
        except OSError as error:
            raise ReadFailed(f"{self.path}: seeking failed: {error}") from error

    def close(self) -> None:
        self.file.close()
        super().close()


def open_shard(path: str) -> BinaryIO:
    """Open a shard through Beam's filesystems, never guessing a compression from its name."""
    file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast("BinaryIO", io.BufferedReader(_Faithful(path, file), buffer_size=1 << 20))
