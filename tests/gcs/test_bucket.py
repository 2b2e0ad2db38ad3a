"""Conditional operations: the same of a bucket in memory and of a real server's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gcs.front import Front
from google.cloud.storage import Blob
from tiny_bucket import TinyBucket

from policy.errors import InputError, Unavailable
from transforms import bucket
from transforms.commit import Output


@pytest.fixture(params=["in memory", "emulator"])
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of an empty bucket; all that is said here must hold of both."""
    if request.param == "emulator":
        yield request.getfixturevalue("shelf") + "/labels"
        return
    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    yield "gs://shelf/labels"


def content_of(path: str) -> bytes | None:
    found = bucket.read(path)
    return found[0] if found else None


def test_what_is_created_stands_and_is_not_created_again(root: str) -> None:
    generation = bucket.create(f"{root}/day 1/a.json", b"first")
    assert generation
    assert bucket.create(f"{root}/day 1/a.json", b"second") is None
    assert bucket.read(f"{root}/day 1/a.json") == (b"first", generation)


def test_of_many_who_create_one_object_one_wins(root: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: bucket.create(f"{root}/a", str(n).encode()), range(8)))
    (winner,) = (number for number, generation in enumerate(won) if generation)
    assert bucket.read(f"{root}/a") == (str(winner).encode(), won[winner])


def test_an_object_is_swapped_by_one_who_knows_its_generation(root: str) -> None:
    first = bucket.create(f"{root}/a", b"first")
    assert first
    second = bucket.swap(f"{root}/a", b"second", first)
    assert second
    assert second > first
    assert bucket.swap(f"{root}/a", b"third", first) is None
    assert content_of(f"{root}/a") == b"second"


def test_objects_are_replaced_copied_and_deleted(root: str) -> None:
    bucket.replace(f"{root}/a", b"first")
    bucket.replace(f"{root}/a", b"second")
    bucket.replace(f"{root}/b", b"old")
    for _ in range(2):
        bucket.copy(f"{root}/a", f"{root}/b")
    for _ in range(2):
        bucket.delete(f"{root}/a")
        assert content_of(f"{root}/a") is None
    assert content_of(f"{root}/b") == b"second"


def test_an_object_of_another_generation_is_not_deleted(root: str) -> None:
    first = bucket.create(f"{root}/a", b"first")
    bucket.replace(f"{root}/a", b"second")
    bucket.delete(f"{root}/a", first)
    assert content_of(f"{root}/a") == b"second"


def test_an_output_in_a_bucket_needs_no_attempts(root: str) -> None:
    output = Output(root, "run")
    assert output.create("day1/a.json", b"first")
    assert not output.create("day1/a.json", b"second")
    output.replace("day1/a.json", b"third")
    output.copy("day1/a.json", "b.json")
    assert content_of(f"{root}/b.json") == b"third"
    assert content_of(f"{root}/day1/a.json") == b"third"
    output.delete("b.json")
    output.delete("b.json")
    assert content_of(f"{root}/b.json") is None


def test_a_copy_of_what_is_gone_says_so(root: str) -> None:
    with pytest.raises(Unavailable, match=r"labels/none: is gone; run the same command again"):
        bucket.copy(f"{root}/none", f"{root}/b")


def test_who_never_comes_to_write_says_so(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.create(f"{root}/a", b"first")
    bucket.create(f"{root}/b", b"other")
    monkeypatch.setattr(bucket, "_generation", lambda _: 999)  # always overtaken
    with pytest.raises(Unavailable, match=r"labels/a: others write it all the time; end them"):
        bucket.replace(f"{root}/a", b"second")
    monkeypatch.setattr(bucket, "_rewrite", _overtaken)
    with pytest.raises(Unavailable, match=r"labels/b: others write it all the time; end them"):
        bucket.copy(f"{root}/a", f"{root}/b")


def _overtaken(*_: object) -> None:
    raise bucket.PreconditionFailed("others were first")


@pytest.mark.usefixtures("front")
def test_a_bucket_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"there is no bucket 'none', or it may not be seen; make"):
        bucket.create("gs://none/a", b"")


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_there_is_nothing_is_asked_for_again_if_it_breaks_off(
    front: Front, shelf: str
) -> None:
    front.fail(kind="read", fault="cut", first=1, count=1)
    assert bucket.read(f"{shelf}/nothing") is None
    assert sum(front.failed.values()) == 1


def test_content_of_another_checksum_is_not_taken(
    shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.replace(f"{shelf}/a", b"content")
    own, short = Blob.download_as_bytes, [b"", b"con"]

    def broken_off(blob: Blob, **how: Any) -> bytes:
        content: bytes = own(blob, **how)
        return short.pop() if short else content

    monkeypatch.setattr(Blob, "download_as_bytes", broken_off)
    found = bucket.read(f"{shelf}/a")
    assert found is not None
    assert found[0] == b"content"
    monkeypatch.setattr(bucket, "TRY_SECONDS", 0.0)
    short.append(b"")
    with pytest.raises(Unavailable, match="0 bytes came with another checksum than theirs"):
        bucket.read(f"{shelf}/a")
