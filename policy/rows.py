"""The schemas of everything written as Parquet, and how it is written."""

import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

OK = "ok"
"""The status of a good row; every other status is the reason for which a record was rejected."""

DUPLICATE = "duplicate"
"""The status of a record whose key came before in the same shard."""

NONFINITE = "nonfinite"
"""The status of an image for which a network gave NaN or infinity."""

NETWORK = "network"
"""The status of an image on which a network fails: it raises, or does not fit into memory."""

_TAIL = [pa.field("status", pa.string(), nullable=False), pa.field("error", pa.string())]

ANSWERS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("classes", pa.list_(pa.int32())),
        pa.field("probabilities", pa.list_(pa.float32())),
        pa.field("entropy", pa.float32()),
        *_TAIL,
    ]
)
"""One answer of one shard; a rejected record is a row with nulls, a status and an error."""

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("features", pa.list_(pa.float16())),
        *_TAIL,
    ]
)
"""The pooled output of one trunk stage, in the same order as the answers."""

LABELS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("name", pa.string()),
        pa.field("classes", pa.list_(pa.int32())),
        pa.field("probabilities", pa.list_(pa.float32())),
        pa.field("answer", pa.string()),
        pa.field("trail", pa.list_(pa.string())),
        pa.field("cost", pa.float64()),
        pa.field("audit", pa.int32()),
        pa.field("disagrees", pa.bool_()),
        *_TAIL,
    ]
)
"""One row per record of a shard: the label, and how it was come by.

`audit` is the full network's best class and `disagrees` whether the label is wrong by it (see
policy/audit.py); null for images that were not audited. `cost` is without the audit's.
"""

_NUMBER = re.compile(r"\d+")
MOST_ERRORS = 20
"""Distinct errors counted by name; corrupt data can give a new one for every record."""

_REPEATING = {"status", "error", "name", "answer", "trail.list.element"}
_NUMBERS = {"classes.list.element", "probabilities.list.element", "features.list.element"}
_SPLIT = "BYTE_STREAM_SPLIT"


def parquet_bytes(
    rows: Sequence[Mapping[str, object]], schema: pa.Schema, about: Mapping[str, object]
) -> bytes:
    """Rows as one Parquet file (see `table_bytes`), with an `account` of them in its metadata.

    The slow way, for few rows: each is a dict.
    """
    table = pa.Table.from_pylist(list(rows), schema=schema)
    return table_bytes(table, account(table) | dict(about))


def table_bytes(table: pa.Table, about: Mapping[str, object]) -> bytes:
    """A table as one Parquet file: zstd, page checksums, dictionaries only where values repeat.

    `about` goes into the file's metadata (see `read_about`). The numbers of answers and features
    are stored with their first bytes together, then their second, and so on: smaller by a fifth,
    and faster both ways. Labels are not: not every reader knows it.
    """
    metadata = {"adalabel": json.dumps(dict(about), sort_keys=True)}
    leaves = _leaves(table.schema)
    ours = not table.schema.equals(LABELS_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[leaf for leaf in leaves if leaf in _REPEATING],
        write_statistics=[leaf for leaf in leaves if leaf not in _NUMBERS],  # none asks for them
        column_encoding={leaf: _SPLIT for leaf in leaves if ours and leaf in _NUMBERS} or None,
    )
    return buffer.getvalue()


def account(table: pa.Table) -> dict[str, Any]:
    """What became of the records of a shard: how many, by status, and for which errors.

    Errors that differ in numbers only count as one, with # for a number. Only the MOST_ERRORS
    commonest are named; the rest are counted under "other".
    """
    given = table["error"].drop_null().to_pylist()
    errors = Counter(_NUMBER.sub("#", error) for error in given if error)
    named = dict(errors.most_common(MOST_ERRORS))
    other = errors.total() - sum(named.values())
    return {
        "records": len(table),
        "statuses": counts(table["status"]),
        "errors": named | ({"other": other} if other else {}),
    }


def counts(column: pa.ChunkedArray) -> dict[Any, int]:
    """How often each value of a column comes, in the order in which they first do; no nulls."""
    found = pc.value_counts(column.drop_null())
    values, times = found.field("values"), found.field("counts")
    return dict(zip(values.to_pylist(), times.to_pylist(), strict=True))


def read_about(schema: pa.Schema) -> dict[str, Any]:
    """The metadata that `parquet_bytes` wrote; empty for a file of other origin."""
    about: dict[str, Any] = json.loads((schema.metadata or {}).get(b"adalabel", b"{}"))
    return about


def _leaves(schema: pa.Schema) -> list[str]:
    return [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
    ]
