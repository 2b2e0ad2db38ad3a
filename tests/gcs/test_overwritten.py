"""A shard that is overwritten while a run reads it gives labels of one generation, or none."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_tfrecord
from gcs import world
from gcs.front import Front
from gcs.world import Place, decisions, ended, run, started

from launch.cli import main
from policy.errors import Unavailable
from transforms import bucket, bucket_files
from transforms.shards import Shard, match_shards, read_records
from transforms.shards.read import sha256_of

RECORDS = 50


def tar_of(images: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, image in enumerate(images):
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    return buffer.getvalue()


def contents(kind: str, seed: int, folder: Path) -> bytes:
    rng = np.random.default_rng(seed)
    images = [tiny.image_bytes(rng) for _ in range(RECORDS)]
    if kind == "tar":
        return tar_of(images)
    if kind == "parquet":
        pq.write_table(pa.table({"image": images}), folder / "s.parquet", row_group_size=5)
        return (folder / "s.parquet").read_bytes()
    return tiny_tfrecord.tfrecord_bytes([{"image/encoded": [image]} for image in images])


@pytest.fixture(params=["tar", "parquet", "tfrecord"])
def shard(
    request: pytest.FixtureRequest, shelf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Shard, bytes]:
    """A shard that takes many requests to read, and what will be put in its place."""
    monkeypatch.setattr(bucket_files, "BLOCK_BYTES", 4096)
    path = f"{shelf}/s.{request.param}"
    bucket.create(path, contents(request.param, 0, tmp_path))
    (found,) = match_shards([path])
    return found, contents(request.param, 1, tmp_path)


OVERWRITTEN = r"s\.\w+: was overwritten or deleted: generation {} was to be read, now there is {}\."


def test_a_shard_overwritten_before_it_is_read_is_refused(shard: tuple[Shard, bytes]) -> None:
    listed, other = shard
    bucket.replace(listed.path, other)
    now = bucket.stat(listed.path)
    assert now is not None
    said = OVERWRITTEN.format(listed.generation, f"generation {now.generation}")
    with pytest.raises(Unavailable, match=said):
        list(read_records(listed))


@pytest.mark.parametrize("read", [1, RECORDS // 2])
@pytest.mark.parametrize("gone", [False, True], ids=["overwritten", "deleted"])
def test_a_shard_overwritten_amid_its_reading_is_refused(
    shard: tuple[Shard, bytes],
    read: int,
    gone: bool,  # noqa: FBT001
) -> None:
    listed, other = shard
    records = read_records(listed)
    before = [next(records) for _ in range(read)]
    now = "none"
    if gone:
        bucket.delete(listed.path)
    else:
        bucket.replace(listed.path, other)
        now = "generation"
    with pytest.raises(Unavailable, match=OVERWRITTEN.format(listed.generation, now + ".*")):
        before += list(records)
    assert all(record.status == "ok" for record in before)


def test_a_shard_overwritten_before_it_is_summed_is_refused(shard: tuple[Shard, bytes]) -> None:
    listed, other = shard
    bucket.replace(listed.path, other)
    with pytest.raises(Unavailable, match="was overwritten or deleted"):
        sha256_of(listed)


def test_where_a_bucket_keeps_versions_the_one_that_was_listed_is_read(front: Front) -> None:
    made = bucket.client().bucket("versions")
    made.versioning_enabled = True
    bucket.client().create_bucket(made)
    rng = np.random.default_rng(0)
    first, second = ([tiny.image_bytes(rng) for _ in range(3)] for _ in range(2))
    bucket.create("gs://versions/s.tar", tar_of(first))
    (listed,) = match_shards(["gs://versions/s.tar"])
    bucket.replace("gs://versions/s.tar", tar_of(second))
    assert [record.image for record in read_records(listed)] == first
    (now,) = match_shards(["gs://versions/s.tar"])
    assert [record.image for record in read_records(now)] == second
    assert now.identity != listed.identity
    del front


def test_plain_images_and_their_labels_are_read_as_they_were_listed(shelf: str) -> None:
    image = tiny.image_bytes(np.random.default_rng(0))
    bucket.create(f"{shelf}/a.png", image)
    bucket.create(f"{shelf}/a.cls", b"1")
    (listed,) = match_shards([f"{shelf}/*"])
    (record,) = read_records(listed)
    assert (record.image, record.label) == (image, 1)
    whole = sha256_of(listed)
    bucket.replace(f"{shelf}/a.cls", b"2")
    with pytest.raises(Unavailable, match=r"a\.cls: was overwritten or deleted: generation"):
        list(read_records(listed))
    (now,) = match_shards([f"{shelf}/*"])
    assert now.identity != listed.identity
    assert sha256_of(now) != whole
    bucket.replace(f"{shelf}/a.png", image)
    with pytest.raises(Unavailable, match=r"a\.png: was overwritten or deleted: generation"):
        list(read_records(now))


@pytest.fixture
def place(shelf: str, tmp_path: Path) -> Place:
    """A corpus in a bucket, with a policy for it."""
    here = world.make(tmp_path)
    assert main(here.options("extract", "table")) == 0
    assert main(here.fit()) == 0
    return world.uploaded(here, shelf, ["networks", "shards", "policy"])


@pytest.mark.slow
def test_a_run_whose_shard_is_overwritten_stops_and_the_next_one_takes_what_is_there(
    front: Front, place: Place, tmp_path: Path
) -> None:
    path, other = f"{place.root}/shards/tf.tfrecord", contents("tfrecord", 1, tmp_path)
    process = started(place.options("classify", "labels"))
    with front.held("_begun", "tf.begun"):  # it was listed and counted, and is to be read
        front.wait()
        bucket.replace(path, other)
    code, said = ended(process)
    assert code == 5, said
    assert "tf.tfrecord: was overwritten or deleted: generation" in said
    run(place.options("classify", "labels"))
    found = decisions(f"{place.root}/labels")
    assert len(found["tf.parquet"]) == RECORDS
    assert main(place.options("classify", "fresh")) == 0
    assert found == decisions(f"{place.root}/fresh")


def test_a_shard_overwritten_after_it_was_labelled_is_found_by_the_next_run(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words = place.options("classify", "labels")
    assert main(words) == 0
    before = bucket.stat(f"{place.root}/shards/tf.tfrecord")
    content = bucket.read(f"{place.root}/shards/tf.tfrecord")
    assert before is not None
    assert content is not None
    bucket.replace(f"{place.root}/shards/tf.tfrecord", content[0])  # the same bytes, even
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"generation {before.generation}" in said
    assert "--mode retry-failed" in said
    assert main([*words, "--mode", "retry-failed"]) == 0
