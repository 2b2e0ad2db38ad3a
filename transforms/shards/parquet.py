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
        parquet = pq.ParquetFile(file)
        _columns(parquet.schema_arrow)
        return int(parquet.metadata.num_rows)
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
    end = row = 0
    for group in range(parquet.num_row_groups):
        end += parquet.metadata.row_group(group).num_rows
        try:
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns):
                for fields in _fields(batch):
                    yield _record(row, fields)
                    row += 1
        except _BROKEN as error:
            for lost in range(row, end):
                yield Record(f"#{lost}", b"").rejected("container", f"parquet: row {lost}: {error}")
            row = end


def _fields(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows; a key that is not UTF-8 is escaped, as it costs its whole batch otherwise."""
    if "key" in batch.schema.names and pa.types.is_string(batch.schema.field("key").type):
        keys = [
            key if key is None else key.decode(errors="backslashreplace")
            for key in batch["key"].cast(pa.binary()).to_pylist()
        ]
        at = batch.schema.get_field_index("key")
        batch = batch.set_column(at, "key", pa.array(keys, pa.string()))
    rows: list[dict[str, object]] = batch.to_pylist()
    return rows


def _columns(schema: pa.Schema) -> list[str]:
    if "image" not in schema.names:
        raise ValueError(f"no column 'image'; the columns are {', '.join(schema.names)}")
    return [name for name in ("key", "image", "label") if name in schema.names]


def _record(row: int, fields: dict[str, object]) -> Record:
    key, image, label = fields.get("key"), fields.get("image"), fields.get("label")
    if isinstance(image, dict):
        image = image.get("bytes")
    is_index = isinstance(label, int) and not isinstance(label, bool) and label >= 0
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
