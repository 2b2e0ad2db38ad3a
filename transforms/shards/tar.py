"""WebDataset tars: consecutive members with the same base name are one record.

The base name is the member's path up to the first dot of its last part; what follows says what the
member is: an image, or `cls`, its class index as decimal text. Names are data, never paths.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

from transforms.shards.record import MAX_IMAGE_BYTES, Record, labelled

EXTENSIONS = (".tar",)

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "img"})
_LABEL = "cls"


@dataclass(frozen=True)
class _Member:
    """A file of the archive; `damage` stands for all that could not be read from here on."""

    base: str
    kind: str
    content: bytes = b""
    size: int = 0
    damage: str | None = None


def count(file: BinaryIO) -> int:
    """The records of a tar, from its headers; what is damaged counts as one more, as in `read`."""
    members = _members(file, lambda _archive, _info: b"")
    return sum(1 for _ in groupby(members, key=lambda member: member.base))


def read(file: BinaryIO) -> Iterator[Record]:
    """The records of a tar in order."""
    for base, members in groupby(_members(file, _content), key=lambda member: member.base):
        yield _record(base, list(members))


def _record(base: str, members: list[_Member]) -> Record:
    record = Record(base, b"")
    images = [member for member in members if member.kind in _IMAGES]
    damage = [member.damage for member in members if member.damage]
    if damage:
        return record.rejected("container", damage[0])
    if not images:
        found = ", ".join(member.kind or "no extension" for member in members)
        return record.rejected("no_image", f"no image among the members of this key: {found}")
    if images[0].size > MAX_IMAGE_BYTES:
        return record.rejected("too_large", f"{images[0].size} bytes; at most {MAX_IMAGE_BYTES}")
    texts = [member.content for member in members if member.kind == _LABEL]
    return labelled(Record(base, images[0].content), texts[0] if texts else None)


def _members(
    file: BinaryIO, content: Callable[[tarfile.TarFile, tarfile.TarInfo], bytes]
) -> Iterator[_Member]:
    """The regular files of an archive, each with its content, and last the damage if there is."""
    position, length = 0, file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                _check_whole(info, length)
                if info.isreg():
                    base, kind = _base_and_kind(info.name)
                    yield _Member(base, kind, content(archive, info), info.size)
                position = archive.offset
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
        damage = _rest(file, position)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        damage = f"tar: {error} after byte {position}"
    if damage:
        yield _Member(f"#{position}", "", damage=damage)


def _check_whole(info: tarfile.TarInfo, length: int) -> None:
    """Refuse a size that runs out of the archive, or backwards, before anybody follows it."""
    if not 0 <= info.size <= length - info.offset_data:
        raise tarfile.ReadError(f"member of {info.size} bytes does not fit into the archive")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info) if info.size <= MAX_IMAGE_BYTES else None
    return file.read() if file else b""


def _rest(file: BinaryIO, position: int) -> str | None:
    """What is wrong behind the last member: tarfile takes a damaged header for the end."""
    file.seek(position)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        return f"tar: cut off at byte {position + len(end)}: the end-of-archive mark is missing"
    while end:
        if end.strip(b"\0"):
            return f"tar: no valid header at byte {position}; what follows cannot be read"
        end = file.read(1 << 20)
    return None


def _base_and_kind(name: str) -> tuple[str, str]:
    name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    folder, slash, last = name.rpartition("/")
    base, _, kind = last.partition(".")
    return folder + slash + base, kind.lower()
