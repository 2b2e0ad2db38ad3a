"""Parquet shards: a column `image` (encoded bytes), and optionally `key` and `label`.

`image` may also be a struct with a field `bytes`, as Hugging Face datasets write it. Without `key`,
the row number is the key.
"""

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from policy.errors import InputError
from transforms.shards.limits import (
    MAX_BATCH_BYTES,
    MAX_IMAGE_BYTES,
    MAX_NAME_BYTES,
    MAX_RECORDS,
    MAX_THRIFT_BYTES,
    MAX_THRIFT_ITEMS,
)
from transforms.shards.record import CONTAINER, Record

EXTENSIONS = (".parquet",)

_ROWS_AT_ONCE = 64
_BUFFER_BYTES = 1 << 20
_BROKEN = (
    pa.ArrowException,
    OSError,
    ValueError,  # a name that is no UTF-8 is one, as are our own checks
    OverflowError,
    KeyError,
    TypeError,
    RecursionError,
)
"""What damaged bytes made pyarrow raise."""


def count(file: BinaryIO) -> int:
    """The rows, from the footer; an unreadable file counts as one record, as in `read`."""
    try:
        parquet, _ = _open(file)
        return sum(_rows_of_groups(parquet.metadata))
    except _BROKEN:
        return 1


def read(file: BinaryIO) -> Iterator[Record]:
    """The rows in order; those from the first unreadable page on are rejected one by one."""
    try:
        parquet, columns = _open(file)
        rows = _rows_of_groups(parquet.metadata)
    except _BROKEN as error:
        yield Record("#0", b"").rejected(CONTAINER, f"parquet: {error}")
        return
    end = row = 0
    for group, promised in enumerate(rows):
        end += promised
        error_text = "the row group ends before its last row"
        try:
            for fields in islice(_group(parquet, group, columns), promised):
                yield _record(row, fields)
                row += 1
        except _BROKEN as error:
            error_text = str(error)
        for lost in range(row, end):
            why = f"parquet: row {lost}: {error_text}"
            yield Record(f"#{lost}", b"").rejected(CONTAINER, why)
        row = end


def _open(file: BinaryIO) -> tuple[pq.ParquetFile, list[str]]:
    """The file and the columns to read; column chunks are streamed, not read whole."""
    parquet = pq.ParquetFile(
        file,
        page_checksum_verification=True,
        pre_buffer=False,
        buffer_size=_BUFFER_BYTES,
        thrift_string_size_limit=MAX_THRIFT_BYTES,
        thrift_container_size_limit=MAX_THRIFT_ITEMS,
    )
    return parquet, _columns(parquet.schema_arrow)


def _rows_of_groups(metadata: pq.FileMetaData) -> list[int]:
    """The rows of each row group; ValueError if the footer contradicts itself."""
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError(f"{metadata.num_rows} rows, but its row groups hold {rows[:5]}")
    if sum(rows) > MAX_RECORDS:
        raise InputError(f"a Parquet shard of {sum(rows)} rows; at most {MAX_RECORDS}. Split it.")
    return rows


def _group(parquet: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, object]]:
    rows = _rows_at_once(parquet.metadata.row_group(group))
    for batch in parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
        yield from _fields(batch)


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """So few rows that they fit MAX_BATCH_BYTES, even if each is as large as a dictionary's value.

    The group's own size is all that is asked of it: asking a damaged footer for its columns ends
    the process (pyarrow 25: the exception of C++ is not caught).
    """
    return int(max(1, min(_ROWS_AT_ONCE, MAX_BATCH_BYTES // max(1, group.total_byte_size))))


def _fields(batch: pa.RecordBatch) -> Iterator[dict[str, object]]:
    """The rows; a key that is not UTF-8 is escaped, as it costs its whole batch otherwise."""
    if "key" in batch.schema.names and pa.types.is_string(batch.schema.field("key").type):
        keys = [
            key if key is None else key.decode(errors="backslashreplace")
            for key in batch["key"].cast(pa.binary()).to_pylist()
        ]
        at = batch.schema.get_field_index("key")
        batch = batch.set_column(at, "key", pa.array(keys, pa.string()))
    rows: list[dict[str, object]] = batch.to_pylist()
    yield from rows


def _columns(schema: pa.Schema) -> list[str]:
    if "image" not in schema.names:
        raise ValueError(f"no column 'image'; the columns are {', '.join(schema.names[:50])}")
    wanted = ("key", "image", "label")
    for name in wanted:
        if schema.names.count(name) > 1:
            raise ValueError(f"column {name!r} appears twice")
    return [name for name in wanted if name in schema.names]


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
    if len(record.key) > MAX_NAME_BYTES:
        why = f"key of {len(record.key)} characters (row {row}); at most {MAX_NAME_BYTES}"
        return Record(f"#{row}", b"").rejected("name", why)
    if not isinstance(image, bytes):
        what = type(image).__name__
        return record.rejected("no_image", f"column 'image' holds {what} (row {row})")
    if len(image) > MAX_IMAGE_BYTES:
        why = f"{len(image)} bytes; at most {MAX_IMAGE_BYTES} (row {row})"
        return record.rejected("too_large", why)
    return record
