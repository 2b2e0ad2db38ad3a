"""Whatever happens to the bytes of a shard: rows, counted alike, unchanged before the damage."""

import gzip
import io
import mmap
import os
import sys
import tarfile
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tfrecord import tfrecord_bytes

from transforms.shards import parquet, tar, tfrecord
from transforms.shards.record import Record

Images = list[tuple[bytes, int]]
KINDS = ("tar", "tgz", "parquet", "tfrecord")

images = st.lists(st.tuples(st.binary(max_size=900), st.integers(0, 9)), min_size=1, max_size=6)


def shard_bytes(kind: str, contents: Images) -> tuple[ModuleType, bytes]:
    """A valid shard of these images and labels, and the module that reads it."""
    buffer = io.BytesIO()
    if kind == "tfrecord":
        rows = [{"image": [image], "label": [label]} for image, label in contents]
        return tfrecord, tfrecord_bytes(rows)
    if kind == "parquet":
        columns = {"image": [c[0] for c in contents], "label": [c[1] for c in contents]}
        table = pa.table(columns)
        pq.write_table(table, buffer, write_page_checksum=True, row_group_size=2)
        return parquet, buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, (image, label) in enumerate(contents):
            name = f"{'é' * number}{number}"
            for ending, content in (("jpg", image), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return tar, gzip.compress(buffer.getvalue()) if kind == "tgz" else buffer.getvalue()


def read(module: ModuleType, content: bytes) -> list[Record]:
    records = list(module.read(io.BytesIO(content)))
    assert module.count(io.BytesIO(content)) == len(records)
    assert all(record.error for record in records if record.status != "ok")
    return records


def unchanged(found: list[Record], whole: list[Record]) -> int:
    """How many records from the first on are what they were."""
    same = 0
    for ours, before in zip(found, whole, strict=False):
        if ours != before:
            break
        same += 1
    return same


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(contents=images, share=st.floats(0, 1, exclude_max=True))
def test_a_cut_shard_keeps_what_lies_before_the_cut(
    kind: str, contents: Images, share: float
) -> None:
    module, content = shard_bytes(kind, contents)
    whole = read(module, content)
    assert [(r.image, r.label) for r in whole] == contents
    found = read(module, content[: int(len(content) * share)])
    good = [record for record in found if record.status == "ok"]
    for ours, before in zip(good, whole, strict=False):
        assert ours.image == before.image
        assert ours.label == before.label or ours.label_error
    assert unchanged(found, whole) >= len(good) - 1  # the last may have lost its label, and says so


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(contents=images, share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_raises_and_loses_nothing_uncounted(
    kind: str, contents: Images, share: float, bit: int
) -> None:
    module, content = shard_bytes(kind, contents)
    whole = read(module, content)
    position = int(len(content) * share)
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    found = read(module, bytes(damaged))
    before = sum(end <= position for end in ends_of(kind, contents, content))
    assert [(r.key, r.image) for r in found[:before]] == [(r.key, r.image) for r in whole[:before]]
    if kind == "tfrecord":
        assert any(record.status == "container" for record in found)


def ends_of(kind: str, contents: Images, content: bytes) -> list[int]:
    """Where each record ends, of the kinds whose records lie one after the other."""
    if kind == "tfrecord":
        rows = [{"image": [image], "label": [label]} for image, label in contents]
        return [len(tfrecord_bytes(rows[: number + 1])) for number in range(len(rows))]
    if kind == "tar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return [info.offset_data + 512 for info in archive if info.name.endswith("cls")]
    return []


@pytest.mark.slow
def test_no_flipped_bit_of_a_parquet_file_ends_the_process() -> None:
    """pyarrow does end it, if one asks a damaged footer for its columns."""
    table = pa.table({"key": ["a", "b"], "image": [b"x" * 30, b"y" * 30], "label": [1, 2]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    content = buffer.getvalue()
    assert ends_the_process(content) == []


def ends_the_process(content: bytes) -> list[int]:
    """The bytes of a file of which one of the eight flips ends the process that reads it."""
    ended: list[int] = []
    first, at = 0, mmap.mmap(-1, 8)
    while first < len(content):
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                for position in range(first, len(content)):
                    at[:] = position.to_bytes(8, "little")
                    read_flipped(content, position)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        ended.append(int.from_bytes(at[:], "little"))
        first = ended[-1] + 1
    return ended


def read_flipped(content: bytes, position: int) -> None:
    """Read a file with each bit of one byte flipped in turn."""
    for bit in range(8):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        read(parquet, bytes(damaged))


def test_what_ends_a_process_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    dies = {2, 5}
    monkeypatch.setattr(module, "read_flipped", lambda _, at: at in dies and os._exit(9))
    assert ends_the_process(bytes(8)) == sorted(dies)
