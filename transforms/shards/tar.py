"""WebDataset tars, also gzipped: consecutive members with the same base name are one record.

The base name is the member's path up to the first dot of its last part; what follows says what the
member is: an image, or `cls`, its class index as decimal text. Names are data, never paths: nothing
is written, and no link is followed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from transforms.shards.inflate import Inflated
from transforms.shards.limits import MAX_IMAGE_BYTES, MAX_LABEL_BYTES, MAX_NAME_BYTES
from transforms.shards.record import CONTAINER, Record, labelled
from transforms.shards.tar_members import DAMAGE, ForwardFile, Member, length_of, members_of

EXTENSIONS = (".tar", ".tgz", ".tar.gz")

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "img"})
LABEL = "cls"

_GZIP = b"\x1f\x8b"
_KINDS_SHOWN = 20


@dataclass
class _Group:
    """The members of one key so far; of each kind at most one."""

    base: str
    position: int
    kinds: dict[str, Member] = field(default_factory=dict)
    image: bytes | None = None
    label: bytes | None = None
    damage: str | None = None
    cut: bool = False


def count(file: BinaryIO) -> int:
    """The records of a tar, from its headers; what is damaged counts as one more, as in `read`."""
    return sum(1 for _ in _groups(file, contents=False))


def read(file: BinaryIO) -> Iterator[Record]:
    """The records of a tar in order.

    A kind that comes again for the same key begins a record of its own, which its caller finds to
    be a duplicate.
    """
    for group in _groups(file, contents=True):
        yield _record(group)


def _groups(file: BinaryIO, *, contents: bool) -> Iterator[_Group]:
    """The members by key; the damage, if there is, is the last group."""
    source, length = _opened(file)
    group: _Group | None = None
    for member in members_of(source, length):
        base, kind = _base_and_kind(member)
        if group and (member.damage or base != group.base or kind in group.kinds):
            group.cut = member.damage is not None
            yield group
            group = None
        group = group or _Group(base, member.position, damage=member.damage)
        group.kinds[kind] = member
        if contents and not member.damage:
            problem = _take(source, group, kind, member)
            if problem:  # as when counting, what follows is the damage
                group.damage = problem
                yield group
                group = _Group(f"#{member.position}", member.position, damage=problem)
                break
    if group:
        yield group


def _opened(file: BinaryIO) -> tuple[ForwardFile, int | None]:
    """The tar's bytes, inflated if need be (by content, not by name), and how many, if known."""
    length = length_of(file)  # type: ignore[arg-type]  # a BinaryIO is one
    is_gzip = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return (cast("ForwardFile", Inflated(file)), None) if is_gzip else (file, length)


def _take(source: ForwardFile, group: _Group, kind: str, member: Member) -> str | None:
    """Read what the record needs of a member; returns why it cannot be read."""
    if member.not_file:
        return None
    try:
        if kind in IMAGES and group.image is None and member.size <= MAX_IMAGE_BYTES:
            group.image = _content(source, member, member.size)
        elif kind == LABEL:
            group.label = _content(source, member, min(member.size, MAX_LABEL_BYTES + 1))
    except DAMAGE as error:
        return f"tar: {error} in the member at byte {member.position}"
    return None


def _content(source: ForwardFile, member: Member, size: int) -> bytes:
    source.seek(member.content_at)
    content = source.read(size)
    if len(content) < size:
        raise EOFError(f"cut off after {len(content)} of {member.size} bytes")
    return content


def _record(group: _Group) -> Record:
    record = Record(group.base, b"")
    if group.damage:
        return record.rejected(CONTAINER, group.damage)
    at = f"(at byte {group.position})"
    if len(group.base) > MAX_NAME_BYTES:
        key = f"#{group.position}"
        return replace(record, key=key).rejected("name", f"name too long {at}: {group.base}")
    images = [kind for kind in group.kinds if kind in IMAGES and not group.kinds[kind].not_file]
    if not images:
        found = ", ".join(_found(kind, member) for kind, member in group.kinds.items())
        return record.rejected("no_image", f"no image among the members of this key: {found} {at}")
    if len(images) > 1:
        found = ", ".join(images)
        return record.rejected("ambiguous", f"{len(images)} images of one key: {found} {at}")
    size = group.kinds[images[0]].size
    if size > MAX_IMAGE_BYTES:
        return record.rejected("too_large", f"{size} bytes; at most {MAX_IMAGE_BYTES} {at}")
    return _with_label(Record(group.base, group.image or b""), group)


def _with_label(record: Record, group: _Group) -> Record:
    label = group.kinds.get(LABEL)
    if label and label.not_file:
        return replace(record, label_error=f"the label is a {label.not_file}, never followed")
    if label is None and group.cut:
        why = "no label before the damage that follows; it may be lost"
        return replace(record, label_error=why)
    return labelled(record, group.label)


def _found(kind: str, member: Member) -> str:
    name = kind[:_KINDS_SHOWN] or "no extension"
    return f"{name} ({member.not_file}, never followed)" if member.not_file else name


def _base_and_kind(member: Member) -> tuple[str, str]:
    name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    folder, slash, last = name.rpartition("/")
    base, _, kind = last.partition(".")
    return folder + slash + base, kind.lower()
