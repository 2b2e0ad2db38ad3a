import io
import struct

import pytest
from tiny_tfrecord import tfrecord_bytes

from transforms.shards import tfrecord
from transforms.shards.example import BrokenExample, Features, parse_example
from transforms.shards.record import Record


def read(content: bytes) -> list[Record]:
    records = list(tfrecord.read(io.BytesIO(content)))
    assert tfrecord.count(io.BytesIO(content)) == len(records)
    return records


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            {"image/encoded": [b"x"], "image/class/label": [7], "image/filename": [b"n/a.jpg"]},
            Record("n/a.jpg", b"x", 7),
        ),
        ({"image": [b"x"], "label": [b"3"], "file_name": [b"\xff"]}, Record("\\xff", b"x", 3)),
        ({"image": [b"x"], "key": [12]}, Record("12", b"x")),
        ({"image": [b"x"]}, Record("0", b"x")),
    ],
)
def test_an_example_is_a_record(row: Features, record: Record) -> None:
    assert read(tfrecord_bytes([row])) == [record]


@pytest.mark.parametrize("label", [[-1], [1.5], [1, 2], [b"cat"]])
def test_a_label_that_is_no_class_index_leaves_the_record_unlabelled(label: list[object]) -> None:
    (record,) = read(tfrecord_bytes([{"image": [b"x"], "label": label}]))
    assert (record.status, record.label) == ("ok", None)
    assert "is not a class index" in str(record.label_error)


@pytest.mark.parametrize("row", [{"picture": [b"x"]}, {"image": [b"x", b"y"]}, {"image": [1]}])
def test_an_example_without_one_image_is_rejected(row: Features) -> None:
    (record,) = read(tfrecord_bytes([row]))
    assert record.status == "no_image"
    assert "holds one text of bytes; found" in str(record.error)


def test_a_wrong_checksum_of_data_costs_that_record_and_one_of_a_length_the_rest() -> None:
    content = tfrecord_bytes([{"image": [bytes([n]) * 50]} for n in range(4)])
    size = len(content) // 4
    data, length = bytearray(content), bytearray(content)
    data[size + 20] ^= 1
    length[size] ^= 1
    assert [record.status for record in read(bytes(data))] == ["ok", "container", "ok", "ok"]
    ok, lost = read(bytes(length))
    assert (ok.status, lost.key) == ("ok", f"#{size}")
    assert f"wrong CRC of a record's length at byte {size}" in str(lost.error)


def test_an_absurd_length_with_a_right_checksum_is_refused_before_it_is_read() -> None:
    head = struct.pack("<Q", 1 << 40)
    (lost,) = read(head + struct.pack("<I", tfrecord._masked_crc(head)) + bytes(99))
    assert f"record of {1 << 40} bytes, but the file ends before" in str(lost.error)


def test_limits_reject_a_record_or_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    content = tfrecord_bytes([{"image": [b"x" * 50]}, {"image": [b"x"]}, {"image": [b"y"]}])
    monkeypatch.setattr(tfrecord, "MAX_IMAGE_BYTES", 9)
    assert [record.status for record in read(content)] == ["too_large", "ok", "ok"]
    monkeypatch.setattr(tfrecord, "MAX_EXAMPLE_BYTES", 40)
    monkeypatch.setattr(tfrecord, "MAX_RECORDS", 2)
    assert [record.status for record in read(content)] == ["too_large", "ok", "container"]


def test_a_key_beyond_any_path_is_rejected() -> None:
    (record,) = read(tfrecord_bytes([{"image": [b"x"], "key": [b"k" * 5000]}]))
    assert (record.key, record.status) == ("0", "name")


def test_bytes_that_are_no_example_are_refused() -> None:
    with pytest.raises(BrokenExample, match=r"no tf.train.Example: "):
        parse_example(b"\xff\xff\xff")
