import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy.errors import InputError
from transforms.shards import parquet
from transforms.shards.limits import MAX_IMAGE_BYTES
from transforms.shards.record import Record


def written(**columns: Sequence[object] | pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns), buffer, write_page_checksum=True, data_page_size=256, row_group_size=100
    )
    return buffer.getvalue()


def read(content: bytes) -> list[Record]:
    """The records of a file; checks that they are as many as are counted."""
    records = list(parquet.read(io.BytesIO(content)))
    assert parquet.count(io.BytesIO(content)) == len(records)
    return records


def test_a_row_is_a_record() -> None:
    content = written(key=["a", "b"], image=[b"x", b"y"], label=[3, None], other=[1, 2])
    assert read(content) == [Record("a", b"x", 3), Record("b", b"y")]


def test_without_keys_the_row_number_is_the_key() -> None:
    assert [record.key for record in read(written(image=[b"x"] * 130))] == [
        str(row) for row in range(130)
    ]


def test_a_missing_key_is_the_row_number_too() -> None:
    content = written(key=pa.array([7, None]), image=[b"x", b"y"])
    assert [record.key for record in read(content)] == ["7", "1"]


def test_images_may_be_structs_as_hugging_face_writes_them() -> None:
    images = [{"bytes": b"x", "path": "x.png"}, {"bytes": None, "path": "y.png"}]
    first, second = read(written(image=images))
    assert first == Record("0", b"x")
    assert second.status == "no_image"


@pytest.mark.parametrize(
    ("images", "error"), [(["text"], "holds str"), ([None], "holds NoneType"), ([5], "holds int")]
)
def test_a_row_without_image_bytes_says_what_it_holds(images: list[object], error: str) -> None:
    (record,) = read(written(image=images, label=[1]))
    assert (record.status, record.label) == ("no_image", 1)
    assert error in str(record.error)


def test_an_image_beyond_the_limit_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_IMAGE_BYTES > 1 << 20
    monkeypatch.setattr(parquet, "MAX_IMAGE_BYTES", 3)
    big, small = read(written(image=[b"xxxx", b"xxx"]))
    assert (big.status, big.error) == ("too_large", "4 bytes; at most 3 (row 0)")
    assert small.status == "ok"


@pytest.mark.parametrize("labels", [[-1], ["cat"], [1.5], ["5"], [True]])
def test_a_label_that_is_no_class_index_leaves_the_row_unlabelled(labels: list[object]) -> None:
    (record,) = read(written(image=[b"x"], label=labels))
    assert (record.label, record.status) == (None, "ok")
    assert record.label_error == f"label {str(labels[0])!r} is not a class index"


def test_a_file_without_images_is_one_rejected_record_however_many_rows_it_has() -> None:
    content = written(picture=[b"x"] * 5, label=[1] * 5)
    (record,) = list(parquet.read(io.BytesIO(content)))
    assert record.status == "container"
    assert "no column 'image'; the columns are picture, label" in str(record.error)
    assert parquet.count(io.BytesIO(content)) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 999, b"PAR1" + bytes(99) + b"PAR1"])
def test_what_is_no_parquet_is_one_damaged_record(content: bytes) -> None:
    (record,) = read(content)
    assert record.status == "container"
    assert str(record.error).startswith("parquet: ")


def test_a_damaged_page_loses_no_row_and_changes_none() -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(40) for _ in range(300)]
    content = written(key=[str(n) for n in range(300)], image=images)
    complete = read(content)
    noticed = 0
    for position in rng.integers(4, len(content) * 3 // 4, size=60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        records = read(bytes(damaged))
        assert len(records) == 300, position
        for record, whole in zip(records, complete, strict=True):
            assert record == whole or record.status == "container", position
        noticed += records != complete
    assert noticed > 30


def test_a_damaged_row_group_costs_no_row_before_it() -> None:
    images = [np.random.default_rng(row).bytes(40) for row in range(300)]
    content = bytearray(written(image=images))
    middle = content.index(images[150])
    content[middle : middle + 8] = bytes(8)
    records = read(bytes(content))
    assert [record.image for record in records[:100]] == images[:100]
    assert records[150].status == "container"
    assert "row 150" in str(records[150].error)
    assert len(records) == 300


def test_a_key_that_is_not_utf8_costs_no_other_row() -> None:
    keys = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    records = read(written(key=keys, image=[b"x", b"y", b"z"]))
    assert len(records) == 3
    assert [records[0].image, records[2].image] == [b"x", b"z"]


def test_a_column_that_appears_twice_is_refused() -> None:
    table = pa.Table.from_arrays([pa.array([b"x"]), pa.array([b"y"])], ["image", "image"])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    (record,) = read(buffer.getvalue())
    assert "column 'image' appears twice" in str(record.error)


def test_more_rows_than_the_limit_are_refused_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_RECORDS", 2)
    content = written(image=[b"x"] * 3)
    for ask in (read, lambda found: parquet.count(io.BytesIO(found))):
        with pytest.raises(InputError, match=r"a Parquet shard of 3 rows; at most 2. Split it"):
            ask(content)


def test_rows_are_decoded_in_small_batches_where_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [bytes([n]) * 5000 for n in range(9)]
    content = written(image=images)
    monkeypatch.setattr(parquet, "MAX_BATCH_BYTES", 10_000)
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    assert parquet._rows_at_once(group) == 1
    assert [record.image for record in read(content)] == images


def test_a_key_beyond_any_path_is_rejected() -> None:
    (record,) = read(written(key=["k" * 5000], image=[b"x"]))
    assert (record.key, record.status) == ("#0", "name")
    assert "key of 5000 characters (row 0); at most 4096" in str(record.error)
