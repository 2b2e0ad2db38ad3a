"""Opening shards so that a failing read is never mistaken for damaged data."""

import io
from typing import BinaryIO, cast

from transforms import files


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


def open_shard(path: str, size: int = 0, generation: int = 0) -> BinaryIO:
    """Open a shard, never guessing a compression from its name.

    In gs://, this generation of `size` bytes is read; Unavailable where it was overwritten.
    """
    file = files.open_file(path, size, generation)
    if files.in_bucket(path):
        return file  # large parts of it are asked for at once, and it is as faithful
    return cast("BinaryIO", io.BufferedReader(_Faithful(path, file), buffer_size=1 << 20))
