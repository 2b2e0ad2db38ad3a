"""Whole small files, on this machine or on any filesystem that pyarrow knows (gs://, s3://)."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

import pyarrow.fs as pafs

from policy.errors import InputError


def filesystem_of(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path, and the path there."""
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    filesystem, inner = pafs.FileSystem.from_uri(quote(path, safe=":/"))
    return filesystem, inner


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    filesystem, inner = filesystem_of(path)
    return bool(filesystem.get_file_info(inner).type == pafs.FileType.File)


def read_bytes(path: str, what: str, most: int | None = None) -> bytes:
    """All of a file; raises InputError if it cannot be read. `what` names it there.

    A file of more than `most` bytes is refused before it is read.
    """
    filesystem, inner = filesystem_of(path)
    try:
        with filesystem.open_input_stream(inner) as stream:
            content = bytes(stream.read() if most is None else stream.read(most + 1))
    except OSError as error:
        raise InputError(f"{path}: {what} cannot be read: {error}") from error
    if most is not None and len(content) > most:
        raise InputError(f"{path}: {what} has more than {most} bytes; is it another file?")
    return content


def write_bytes(path: str, content: bytes) -> None:
    """Write a file that appears complete or not at all, in a folder that is made where missing."""
    if "://" in path:
        filesystem, inner = filesystem_of(path)
        filesystem.create_dir(inner.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(inner) as stream:
            stream.write(content)
        return
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    attempt = final.with_name(f".{final.name}.{secrets.token_hex(8)}")
    with attempt.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    attempt.rename(final)


def delete(path: str) -> None:
    """Remove a file if it is there."""
    filesystem, inner = filesystem_of(path)
    if exists(path):
        filesystem.delete_file(inner)
