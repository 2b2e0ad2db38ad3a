"""Writing files so that a reader sees all of one or nothing of it."""

import os
import posixpath
import re
import secrets
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

ATTEMPTS = "_attempts"
"""The folder, in the root of every output, that holds files still being written."""


def write_once(root: str, name: str, content: bytes) -> None:
    """Write root/name so that it appears complete or not at all, replacing what was there.

    The content goes to root/_attempts under a random name first, is synced to disk, and is then
    renamed; on other filesystems the rename is the filesystem's own.
    """
    flat = name.replace("/", "__")
    attempt = posixpath.join(root, ATTEMPTS, f"{flat}.{secrets.token_hex(8)}")
    final = posixpath.join(root, name)
    if "://" in root:
        with FileSystems.create(attempt, compression_type="uncompressed") as file:
            file.write(content)
        FileSystems.rename([attempt], [final])
        return
    Path(attempt).parent.mkdir(parents=True, exist_ok=True)
    Path(final).parent.mkdir(parents=True, exist_ok=True)
    with Path(attempt).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(attempt).rename(final)
    _sync_folder(Path(final).parent)


def existing(folder: str, extension: str) -> set[str]:
    """Names below a folder, without the extension, of the files that have it."""
    pattern = posixpath.join(re.sub(r"[*?[]", r"[\g<0>]", folder), "**" + extension)
    (result,) = FileSystems.match([pattern])
    prefix = folder.rstrip("/") + "/"
    return {
        found.path.removeprefix(prefix).removesuffix(extension) for found in result.metadata_list
    }


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
