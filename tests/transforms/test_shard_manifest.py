from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipelines.manifest import ManifestOptions, run
from pipelines.options import ShardOptions
from policy.errors import InputError
from transforms.shards import Promise, Shard, count_records, match_shards, read_records
from transforms.shards.read import sha256_of
from transforms.shards.shard_manifest import ShardEntry, read_shard_manifest, with_promises


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    members = tiny.image_members(np.random.default_rng(0), 5)
    return tiny.shard("s", tiny.write_tar(tmp_path / "in" / "s.tar", members))


@pytest.fixture
def manifest(shard: Shard, tmp_path: Path) -> str:
    path = str(tmp_path / "shards.json")
    receipt = run(ManifestOptions(input=(shard.path,), output=path))
    assert (receipt.shards, receipt.records, receipt.bytes) == (1, 5, shard.bytes)
    assert "1 shards, 5 records" in receipt.text()
    return path


def promised(shard: Shard, records: int, sha256: str | None = None) -> Shard:
    return replace(shard, promise=Promise(records, sha256 or sha256_of(shard)))


def test_a_manifest_says_what_shards_hold(shard: Shard, manifest: str) -> None:
    (kept,) = ShardOptions(input=(shard.path,), shard_manifest=manifest).shards()
    assert kept.promise == Promise(5, sha256_of(shard))
    assert count_records(kept) == 5
    assert list(read_records(kept)) == list(read_records(shard))
    assert ShardOptions(input=(shard.path,)).shards() == (replace(kept, promise=None),)


@pytest.mark.parametrize("records", [1, 3, 5, 9])
def test_rows_are_as_many_as_promised(shard: Shard, records: int) -> None:
    rows = list(read_records(promised(shard, records)))
    whole = list(read_records(shard))
    assert len(rows) == count_records(promised(shard, records)) == records
    good = records - 1 if records < 5 else min(records, 5)
    assert rows[:good] == whole[:good]
    assert {row.status for row in rows[good:]} <= {"container"}
    if records < 5:
        assert f"holds more than the {records} records" in str(rows[-1].error)
    if records > 5:
        assert "ends after 5 of the 9 records promised" in str(rows[-1].error)


def test_records_of_a_shard_that_promises_none_are_not_silent(shard: Shard) -> None:
    (row,) = read_records(promised(shard, 0))
    assert "holds more than the 0 records" in str(row.error)


def test_a_shard_with_other_bytes_gives_no_image(shard: Shard) -> None:
    rows = list(read_records(promised(shard, 7, "0" * 64)))
    assert [row.status for row in rows] == ["container"] * 7
    assert all("its manifest says 0000" in str(row.error) for row in rows)
    assert rows[0].key == "s/0000"


def test_shards_that_differ_from_the_manifest_are_refused(shard: Shard, manifest: str) -> None:
    def checked(*shards: Shard) -> None:
        with_promises(shards, read_shard_manifest(manifest), manifest)

    with pytest.raises(InputError, match=r"shard 's' of .* is not among those of --input"):
        checked()
    with pytest.raises(InputError, match=r"shard 'new' is not in .*shards.json; bring back"):
        checked(shard, replace(shard, name="new"))
    with pytest.raises(InputError, match=r"shard 's' has 1 bytes, .* says \d+"):
        checked(replace(shard, bytes=1))


def test_a_manifest_that_says_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted none below 0"):
        ShardEntry("a", -1, 0, "0" * 64)
    with pytest.raises(InputError, match="wanted 64 hexadecimal digits"):
        ShardEntry("a", 1, 0, "x")
    (tmp_path / "m.json").write_text('{"version": 2, "shards": {}}')
    with pytest.raises(InputError, match=r"newer adalabel \(version 2, this one reads 1\)"):
        read_shard_manifest(str(tmp_path / "m.json"))


def test_plain_images_of_a_folder_are_shards_with_labels(tmp_path: Path) -> None:
    for name, content in (("b.jpg", b"B"), ("a.PNG", b"A"), ("a.cls", b"3"), ("z.cls", b"1")):
        (tmp_path / name).write_bytes(content)
    (found,) = match_shards([f"{tmp_path}/*"])
    assert (found.name, found.bytes) == ("images-00000", 3)
    first, second, alone = read_records(found)
    assert (first.key, first.image, first.label) == ("images-00000/a.PNG", b"A", 3)
    assert (second.key, second.image, second.label) == ("images-00000/b.jpg", b"B", None)
    assert (alone.status, count_records(found)) == ("no_image", 3)
    (tmp_path / "b.jpg").write_bytes(b"longer")
    (other,) = match_shards([f"{tmp_path}/*"])
    assert other.identity != found.identity
    assert [row.status for row in read_records(found)] == ["ok", "container", "no_image"]
    assert {found: 1}[found] == 1
