import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy.rows import (
    ANSWERS_SCHEMA,
    FEATURES_SCHEMA,
    LABELS_SCHEMA,
    OK,
    parquet_bytes,
    read_about,
    table_bytes,
)

REJECTED = {"key": "s/bad", "status": "decode", "error": "png: truncated"}
GOOD: dict[str, dict[str, object]] = {
    "answers": {"label": 3, "classes": [3, 1], "probabilities": [0.75, 0.25], "entropy": 0.5},
    "features": {"label": 3, "features": [1.5, -2.0]},
    "labels": {
        "label": 3,
        "name": "yak",
        "classes": [3],
        "probabilities": [0.75],
        "answer": "small",
        "trail": ["exit", "small"],
        "cost": 4.75,
    },
}
SCHEMAS = {"answers": ANSWERS_SCHEMA, "features": FEATURES_SCHEMA, "labels": LABELS_SCHEMA}


def rows(kind: str) -> list[dict[str, object]]:
    return [{"key": "s/1", "status": OK, **GOOD[kind]}, REJECTED]


def metadata(content: bytes) -> pq.FileMetaData:
    return pq.ParquetFile(io.BytesIO(content)).metadata


@pytest.mark.parametrize("kind", SCHEMAS)
def test_rows_read_back_with_nulls_where_nothing_is_known(kind: str) -> None:
    table = pq.read_table(io.BytesIO(parquet_bytes(rows(kind), SCHEMAS[kind], {})))
    assert table.schema.equals(SCHEMAS[kind])
    nothing = dict.fromkeys(SCHEMAS[kind].names)
    assert table.to_pylist() == [{**nothing, **row} for row in rows(kind)]


def test_rows_stay_in_order() -> None:
    keys = [f"s/{key}" for key in np.random.default_rng(0).permutation(500)]
    content = parquet_bytes([{**REJECTED, "key": key} for key in keys], ANSWERS_SCHEMA, {})
    assert pq.read_table(io.BytesIO(content))["key"].to_pylist() == keys


def test_what_the_file_is_about_reads_back_with_the_statuses_counted() -> None:
    content = parquet_bytes([*rows("answers"), REJECTED], ANSWERS_SCHEMA, {"fingerprint": "f00"})
    about = read_about(pq.read_schema(io.BytesIO(content)))
    assert about["fingerprint"] == "f00"
    assert about["statuses"] == {"ok": 1, "decode": 2}
    assert about["records"] == 3
    assert sum(about["errors"].values()) == 2


@pytest.mark.parametrize("other", [None, {"pandas": "x"}])
def test_a_file_of_other_origin_is_about_nothing(other: Mapping[str, str] | None) -> None:
    assert read_about(pa.schema([], metadata=other)) == {}


def test_no_rows_make_a_file_with_the_schema() -> None:
    content = parquet_bytes([], LABELS_SCHEMA, {})
    assert pq.read_table(io.BytesIO(content)).schema.equals(LABELS_SCHEMA)
    about = read_about(pq.read_schema(io.BytesIO(content)))
    assert about == {"records": 0, "statuses": {}, "errors": {}}


def test_the_same_rows_make_the_same_bytes() -> None:
    first, again = (parquet_bytes(rows("labels"), LABELS_SCHEMA, {"a": 1}) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("kind", SCHEMAS)
def test_columns_are_zstd_and_only_those_that_repeat_have_a_dictionary(kind: str) -> None:
    group = metadata(parquet_bytes(rows(kind), SCHEMAS[kind], {})).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    repeating = {"status", "error", "name", "answer", "trail.list.element"}
    paths = {column.path_in_schema for column in columns}
    having = {column.path_in_schema for column in columns if column.has_dictionary_page}
    assert having == repeating & paths


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_numbers_of_a_table_are_split_by_byte_and_those_of_labels_read_by_all(
    kind: str,
) -> None:
    group = metadata(parquet_bytes(rows(kind), SCHEMAS[kind], {})).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    split = {c.path_in_schema for c in columns if "BYTE_STREAM_SPLIT" in c.encodings}
    numbers = {"classes.list.element", "probabilities.list.element", "features.list.element"}
    paths = {column.path_in_schema for column in columns}
    assert split == (set() if kind == "labels" else numbers & paths)


def test_what_a_table_is_about_is_what_was_given() -> None:
    table = pa.Table.from_pylist(rows("answers"), schema=ANSWERS_SCHEMA)
    content = table_bytes(table, {"made_by": "us"})
    assert read_about(pq.read_schema(io.BytesIO(content))) == {"made_by": "us"}
    assert pq.read_table(io.BytesIO(content)).equals(table)


def test_a_flipped_bit_in_a_page_is_noticed() -> None:
    content = bytearray(parquet_bytes(rows("answers"), ANSWERS_SCHEMA, {}))
    column = metadata(bytes(content)).row_group(0).column(4)
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    with pytest.raises(OSError, match=r"CRC|checksum|orrupt"):
        pq.read_table(io.BytesIO(bytes(content)), page_checksum_verification=True)


@pytest.mark.parametrize("missing", ["key", "status"])
def test_a_row_without_key_or_status_is_refused(missing: str) -> None:
    row = {name: value for name, value in REJECTED.items() if name != missing}
    with pytest.raises((KeyError, pa.ArrowInvalid), match=missing):
        parquet_bytes([row], ANSWERS_SCHEMA, {})
