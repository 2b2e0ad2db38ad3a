"""TFRecord shards of tf.train.Example, as TensorFlow's image pipelines write them.

Framing: length (8 bytes), its masked CRC-32C, data, its masked CRC-32C. Read here and not with
Beam's reader, which asks for as many bytes as a length claims and does not say which CRC is wrong.
Fields: the image is `image/encoded` or `image`; the label `image/class/label` or `label`; the key
`image/filename`, `file_name` or `key`, else the record's number.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from transforms.shards.example import BrokenExample, Features, parse_example
from transforms.shards.limits import MAX_IMAGE_BYTES, MAX_NAME_BYTES, MAX_RECORDS
from transforms.shards.record import CONTAINER, Record, labelled
from transforms.shards.tar_members import length_of

EXTENSIONS = (".tfrecord", ".tfrecords")

MAX_EXAMPLE_BYTES = MAX_IMAGE_BYTES + (1 << 20)
"""Bytes of one record: the largest image and its other fields."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_IMAGES = ("image/encoded", "image")
_LABELS = ("image/class/label", "label")
_KEYS = ("image/filename", "file_name", "key")


@dataclass(frozen=True)
class _Frame:
    """A record's data, or why it is lost; after `last`, nothing more can be found."""

    position: int
    data: bytes = b""
    status: str | None = None
    problem: str = ""
    last: bool = False


def count(file: BinaryIO) -> int:
    """The records, from their lengths alone; what is damaged counts as one more, as in `read`."""
    return sum(1 for _ in _frames(file, contents=False))


def read(file: BinaryIO) -> Iterator[Record]:
    """The records in order; a wrong CRC of data loses that record, one of a length the rest."""
    for number, frame in enumerate(_frames(file, contents=True)):
        if frame.status:
            key = f"#{frame.position}" if frame.last else str(number)
            yield Record(key, b"").rejected(frame.status, frame.problem)
        else:
            yield _record(number, frame)


def _frames(file: BinaryIO, *, contents: bool) -> Iterator[_Frame]:
    length = length_of(file)  # type: ignore[arg-type]  # a BinaryIO is one
    position = number = 0
    while position < length:
        header = file.read(_HEADER.size)
        problem = _wrong_header(header, length - position, number)
        if problem:
            text = f"tfrecord: {problem} at byte {position}"
            yield _Frame(position, b"", CONTAINER, text, last=True)
            return
        size, _ = _HEADER.unpack(header)
        yield _frame(file, position, size, contents=contents)
        position += _HEADER.size + size + _CRC.size
        file.seek(position)
        number += 1


def _wrong_header(header: bytes, left: int, number: int) -> str | None:
    """Why the frame that begins so cannot be followed; `left` bytes of the file begin with it."""
    if len(header) < _HEADER.size:
        return f"cut off after {len(header)} bytes of a record's header"
    size, crc = _HEADER.unpack(header)
    if crc != _masked_crc(header[:8]):
        return "wrong CRC of a record's length"
    if size > left - _HEADER.size - _CRC.size:
        return f"record of {size} bytes, but the file ends before"
    if number >= MAX_RECORDS:
        return f"more than {MAX_RECORDS} records"
    return None


def _frame(file: BinaryIO, position: int, size: int, *, contents: bool) -> _Frame:
    if size > MAX_EXAMPLE_BYTES:
        why = f"{size} bytes at byte {position}; at most {MAX_EXAMPLE_BYTES}"
        return _Frame(position, b"", "too_large", why)
    if not contents:
        return _Frame(position)
    data = file.read(size)
    crc = file.read(_CRC.size)
    if len(crc) < _CRC.size or _CRC.unpack(crc)[0] != _masked_crc(data):
        why = f"tfrecord: wrong CRC of the data of the record at byte {position}"
        return _Frame(position, b"", CONTAINER, why)
    return _Frame(position, data)


def _masked_crc(data: bytes) -> int:
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _record(number: int, frame: _Frame) -> Record:
    at = f"(at byte {frame.position})"
    try:
        features = parse_example(frame.data)
    except BrokenExample as error:
        return Record(str(number), b"").rejected("no_image", f"{error} {at}")
    key = _key(features, number)
    if len(key) > MAX_NAME_BYTES:
        return Record(str(number), b"").rejected("name", f"key of {len(key)} characters {at}")
    image = _first(features, _IMAGES)
    record = _labelled(Record(key, b""), _first(features, _LABELS))
    if not isinstance(image, bytes):
        names = ", ".join(list(features)[:20])
        why = f"none of {', '.join(_IMAGES)} holds one text of bytes; found {names} {at}"
        return record.rejected("no_image", why)
    if len(image) > MAX_IMAGE_BYTES:
        why = f"{len(image)} bytes; at most {MAX_IMAGE_BYTES} {at}"
        return record.rejected("too_large", why)
    return Record(key, image, record.label, record.label_error)


def _first(features: Features, names: tuple[str, ...]) -> object:
    """The only value of the first of these features that is there."""
    for name in names:
        if name in features:
            values = features[name]
            return values[0] if len(values) == 1 else tuple(values[:3])
    return None


def _key(features: Features, number: int) -> str:
    value = _first(features, _KEYS)
    if isinstance(value, bytes) and value:
        return value.decode(errors="backslashreplace")
    return str(value) if isinstance(value, int) else str(number)


def _labelled(record: Record, value: object) -> Record:
    if value is None or value == ():
        return record
    return labelled(record, value if isinstance(value, bytes) else str(value).encode())
