"""Parquet shards: a column `image` (encoded bytes), and optionally `key` and `label`.

`image` may also be a struct with a field `bytes`, as Hugging Face datasets write it. Without `key`,
the row number is the key.
"""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.shards.record import MAX_IMAGE_BYTES, Record

EXTENSIONS = (".parquet",)

_ROWS_AT_ONCE = 64
_BROKEN = (pa.ArrowException, OSError, ValueError)


def count(file: BinaryIO) -> int:
    """The rows, from the footer; an unreadable file counts as one record, as in `read`."""
    try:
        return int(pq.ParquetFile(file).metadata.num_rows)
    except _BROKEN:
        return 1


def read(file: BinaryIO) -> Iterator[Record]:
    """The rows in order; those from the first unreadable page on are rejected one by one."""
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        columns = _columns(parquet.schema_arrow)
    except _BROKEN as error:
        yield Record("#0", b"").rejected("container", f"parquet: {error}")
        return
    row = 0
    try:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns):
            for fields in batch.to_pylist():
                yield _record(row, fields)
                row += 1
    except _BROKEN as error:
        for lost in range(row, parquet.metadata.num_rows):
            yield Record(f"#{lost}", b"").rejected("container", f"parquet: row {lost}: {error}")


def _columns(schema: pa.Schema) -> list[str]:
    if "image" not in schema.names:
        raise ValueError(f"no column 'image'; the columns are {', '.join(schema.names)}")
    return [name for name in ("key", "image", "label") if name in schema.names]


def _record(row: int, fields: dict[str, object]) -> Record:
    key, image, label = fields.get("key"), fields.get("image"), fields.get("label")
    if isinstance(image, dict):
        image = image.get("bytes")
    is_index = isinstance(label, int) and label >= 0
    wrong_label = label is not None and not is_index
    record = Record(
        key=str(row) if key is None else str(key),
        image=image if isinstance(image, bytes) else b"",
        label=label if isinstance(label, int) and is_index else None,
        label_error=f"label {str(label)[:40]!r} is not a class index" if wrong_label else None,
    )
    if not isinstance(image, bytes):
        return record.rejected("no_image", f"column 'image' holds {type(image).__name__}")
    if len(image) > MAX_IMAGE_BYTES:
        return record.rejected("too_large", f"{len(image)} bytes; at most {MAX_IMAGE_BYTES}")
    return record
