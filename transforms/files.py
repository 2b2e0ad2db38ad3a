"""Files on this machine, in gs:// and on Beam's other filesystems: found, opened, read, removed."""

import re
from dataclasses import dataclass
from typing import BinaryIO, cast

from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError, Stopped, shown
from policy.schema import MOST_BYTES
from transforms import bucket, bucket_files


@dataclass(frozen=True)
class FoundFile:
    """A file of `bytes`; `modified` is in seconds since 1970, 0 where unknown.

    `generation` is the number that gs:// gives to what is written, 0 elsewhere.
    """

    path: str
    bytes: int
    modified: float
    generation: int = 0


def in_bucket(path: str) -> bool:
    """Whether it lies in gs://, where what is there has a generation."""
    return path.startswith(bucket.SCHEME)


def matched(pattern: str) -> list[FoundFile]:
    """The files of a path or a glob: ** crosses folders, * and ? do not."""
    if in_bucket(pattern):
        return [
            FoundFile(found.path, found.bytes, found.modified, found.generation)
            for found in bucket_files.matched(pattern)
        ]
    (result,) = FileSystems.match([pattern])
    return [
        FoundFile(found.path, found.size_in_bytes, found.last_updated_in_seconds or 0.0)
        for found in result.metadata_list
    ]


def escaped(path: str) -> str:
    """The pattern that matches this path alone."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    if in_bucket(path):
        return bucket.stat(path) is not None
    return bool(FileSystems.exists(path))


def open_file(path: str, size: int = 0, generation: int = 0) -> BinaryIO:
    """A file's bytes as they lie; in gs:// of one generation: this one, of `size` bytes, if given.

    Reading raises Unavailable where that was overwritten.
    """
    if in_bucket(path):
        return cast("BinaryIO", bucket_files.opened(path, size, generation))
    file: BinaryIO = FileSystems.open(path, compression_type="uncompressed")
    return file


def delete(file: FoundFile) -> None:
    """Remove a file that was found, unless it was overwritten since."""
    if in_bucket(file.path):
        bucket.delete(file.path, file.generation)
    else:
        FileSystems.delete([file.path])


def read_bytes(path: str, what: str, most: int | None = None) -> bytes:
    """Read a whole file; `what` names it in errors.

    No more than `most` bytes are read, and a file that has more is refused. Raises InputError if it
    cannot be read, and Unavailable if a bucket does not answer.
    """
    try:
        content = _content(path, most)
    except (InputError, Stopped):
        raise
    except Exception as error:  # Beam wraps what the filesystem said; the user needs that text
        if "Unable to get filesystem" in str(error):  # which asks for a package
            raise InputError(
                f"{shown(path)}: {what} cannot be read from there; wanted a path on this machine, "
                "gs:// or s3://"
            ) from error
        raise InputError(f"{path}: {what} cannot be read: {error}") from error
    if most is not None and len(content) > most:
        raise InputError(f"{path}: {what} has more than {most} bytes; is it another file?")
    return content


def _content(path: str, most: int | None) -> bytes:
    if in_bucket(path) and most is None:
        return bucket_files.read_whole(path)
    with open_file(path) as file:
        return bytes(file.read() if most is None else file.read(most + 1))


def read_text(path: str, what: str) -> str:
    """Read a whole UTF-8 file of at most MOST_BYTES, as `read_bytes` does."""
    try:
        return read_bytes(path, what, MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {what} is not UTF-8: {error}") from error
