"""The members of a tar in order, whatever its bytes are: bounded memory, no second way out.

`tarfile` parses the headers, through a file that hands it no more than MAX_HEADER_BYTES a member.
"""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from transforms.shards.limits import MAX_GLOBAL_FIELDS, MAX_HEADER_BYTES, MAX_RECORDS

DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,  # tarfile follows a header that announces a header by calling itself
)
"""What damaged bytes make tarfile, gzip and our own checks raise."""

_NOT_FILES = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "FIFO",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_NO_MEMBERS = (tarfile.DIRTYPE, b"V")  # a volume's label


class ForwardFile(Protocol):
    """What is needed of the file: a plain one, or an inflated one that only goes forward."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, fewer only at the end."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go to a position."""

    def tell(self) -> int:
        """The position."""


@dataclass(frozen=True)
class Member:
    """A member of the archive, or with `damage` all that could not be read from `position` on.

    `size` and `content_at` are bytes; `not_file` says what the member is if it has no content that
    can be read as it lies.
    """

    name: str
    position: int
    size: int = 0
    content_at: int = 0
    not_file: str | None = None
    damage: str | None = None


class _Headers:
    """The file as tarfile sees it: reads are counted since the last member, and remembered."""

    def __init__(self, file: ForwardFile) -> None:
        self.file = file
        self.budget = MAX_HEADER_BYTES
        self.last = b""

    def read(self, size: int) -> bytes:
        self.budget -= size
        if size < 0 or self.budget < 0:
            raise ValueError(f"the headers of one member take more than {MAX_HEADER_BYTES} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, offset: int) -> int:
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()


def length_of(file: io.BufferedIOBase) -> int:
    """The bytes of a plain file, which is at its start afterwards."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def members_of(file: ForwardFile, length: int | None) -> Iterator[Member]:
    """All members but folders, and last the damage if there is; `length` is None if unknown.

    The file may be read between two members, but not left before the member's content.
    """
    headers, position, number = _Headers(file), 0, 0
    try:
        with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]
            for number, info in enumerate(archive, start=1):
                _check(archive, info, number, length)
                if info.type not in _NO_MEMBERS:
                    yield _member(info, position)
                position = archive.offset
                archive.members.clear()
                headers.budget = MAX_HEADER_BYTES
        damage = _rest(file, headers.last, position)
    except DAMAGE as error:
        damage = f"tar: {error or type(error).__name__} after byte {position}"
    if damage:
        yield Member(f"#{position}", position, damage=damage)


def _member(info: tarfile.TarInfo, position: int) -> Member:
    kind = _NOT_FILES.get(info.type)
    if kind is None and info.sparse is not None:
        kind = "sparse file"
    if kind is None and not info.isreg():
        kind = f"member of unknown type {info.type!r}"
    return Member(info.name, position, info.size, info.offset_data, kind)


def _check(
    archive: tarfile.TarFile, info: tarfile.TarInfo, number: int, length: int | None
) -> None:
    """Refuse what runs out of the archive, or backwards, before anybody follows it."""
    end = archive.offset  # behind the member, where the next begins
    if info.size < 0 or end < info.offset_data or (length is not None and end > length):
        raise tarfile.ReadError(f"member of {info.size} bytes does not fit into the archive")
    if number > MAX_RECORDS:
        raise tarfile.ReadError(f"more than {MAX_RECORDS} members; split the shard")
    if len(archive.pax_headers) > MAX_GLOBAL_FIELDS:
        raise tarfile.ReadError(f"more than {MAX_GLOBAL_FIELDS} fields in global headers")


def _rest(file: ForwardFile, end: bytes, position: int) -> str | None:
    """What is wrong behind the last member: tarfile takes a damaged header for the end.

    `end` is what it read there last. An archive that ends without its mark is what a cut leaves,
    even if all members before it are whole.
    """
    if len(end) < tarfile.BLOCKSIZE:
        return f"tar: cut off at byte {position + len(end)}: the end-of-archive mark is missing"
    while end:
        if end.strip(b"\0"):
            return f"tar: no valid header at byte {position}; what follows cannot be read"
        end = file.read(1 << 20)
    return None
