"""Listings that come in pages, and patterns, are the same in a bucket as on a disk."""

from pathlib import Path

import pytest
import tiny
from gcs.front import Front

from policy.errors import InputError
from transforms import bucket
from transforms.at_once import at_once
from transforms.commit import Output, existing
from transforms.files import FoundFile, delete, escaped, exists, matched
from transforms.shards import match_shards

NAMES = [f"corpus/{n:04d}.tar" for n in range(23)]
NAMES += ["corpus/deep/a.tar", "corpus/deep/er/b.tar", "corpus/x [1].tar", "corpus/x 1.tar"]
NAMES += ["corpus-2/0001.tar", "other.tar"]


@pytest.fixture
def pages(front: Front, shelf: str, tmp_path: Path) -> tuple[str, str]:
    """The same empty files below a bucket, whose listings come in pages of three, and a folder."""
    for name in NAMES:
        bucket.create(f"{shelf}/{name}", b"")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    front.forget()
    front.tell(page_size=3)
    return shelf, str(tmp_path)


@pytest.mark.parametrize(
    "pattern",
    [
        "corpus/*.tar",
        "corpus/**.tar",
        "corpus/",
        "corpus/000[1-4].tar",
        "corpus/00?0.tar",
        "corpus/x [[]1].tar",
        "corpus/*/a.tar",
        "corpus*/0001.tar",
        "corpus/0003.tar",
        "**",
        "none/*.tar",
    ],
)
def test_a_pattern_finds_the_same_in_pages_as_on_a_disk(
    pages: tuple[str, str], pattern: str
) -> None:
    there, here = (
        sorted(found.path.removeprefix(root) for found in matched(f"{root}/{pattern}"))
        for root in pages
    )
    assert there == here


def test_shards_are_found_in_as_many_pages_as_there_are(
    front: Front, pages: tuple[str, str]
) -> None:
    shards = match_shards([f"{pages[0]}/corpus/*.tar"])
    assert len(shards) == 25
    assert front.requests["list"] == 9
    assert all(shard.generation for shard in shards)


def test_what_an_output_holds_is_found_in_as_many_pages_as_there_are(
    front: Front, pages: tuple[str, str]
) -> None:
    assert len(existing(pages[0], ".tar")) == len(NAMES)
    assert front.requests["list"] > 5
    output = Output(pages[0], "run")
    output.delete_folder("corpus")
    assert existing(pages[0], "") == {"corpus-2/0001.tar", "other.tar"}


@pytest.mark.slow
def test_more_objects_than_a_page_holds_are_all_found(front: Front, pages: tuple[str, str]) -> None:
    front.tell(page_size=1000)  # as the service has it
    output = Output(f"{pages[0]}/many", "run")
    assert all(at_once(lambda number: output.create(f"{number}.json", b""), range(1100)))
    assert existing(output.path, ".json") == {str(number) for number in range(1100)}


def test_a_file_that_was_replaced_since_it_was_found_is_not_removed(shelf: str) -> None:
    bucket.create(f"{shelf}/a", b"first")
    (found,) = matched(escaped(f"{shelf}/a"))
    bucket.replace(f"{shelf}/a", b"second")
    delete(found)
    assert exists(f"{shelf}/a")
    delete(*matched(f"{shelf}/a"))
    assert not exists(f"{shelf}/a")


def test_a_file_elsewhere_is_removed_by_its_path(tmp_path: Path) -> None:
    path = tiny.write_tar(tmp_path / "a.tar", [])
    delete(FoundFile(str(path), 0, 0.0))
    assert not path.exists()


@pytest.mark.usefixtures("front")
@pytest.mark.parametrize("pattern", ["gs://none/*.tar", "gs://none/**"])
def test_a_bucket_that_is_not_there_is_named(pattern: str) -> None:
    with pytest.raises(InputError, match=r"gs://none/: there is no bucket 'none', or it may not"):
        matched(pattern)
