import os
from pathlib import Path

import numpy as np
import pytest
import tiny

from policy.errors import InputError
from transforms.shards import count_records, image_files, match_shards, read_records
from transforms.shards.shard import Shard, path_of


def touch(folder: Path, *names: str) -> None:
    for name in names:
        tiny.write_tar(folder / name, [])


def names(*patterns: object) -> list[str]:
    return [shard.name for shard in match_shards(map(str, patterns))]


def test_shards_are_found_by_path_and_by_glob_sorted_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "b.tar", "a.tar", "c.TAR")
    assert match_shards([f"{tmp_path}/*.tar", f"{tmp_path}/c.TAR"]) == tuple(
        tiny.shard(name, tmp_path / file)
        for name, file in (("a", "a.tar"), ("b", "b.tar"), ("c", "c.TAR"))
    )


def test_a_name_is_the_path_below_what_has_no_wildcard(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.tar", "day2/a.tar", "day2/b.x.tar")
    assert names(f"{tmp_path}/day*/*.tar") == ["day1/a", "day2/a", "day2/b.x"]
    assert names(f"{tmp_path}/day2/?.tar") == ["a"]
    assert names(f"{tmp_path}/day[1]/a.tar") == ["day1/a"]


def test_relative_patterns_are_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a.tar")
    monkeypatch.chdir(tmp_path)
    assert names("in/*.tar") == names("in/a.tar") == names("./in/a.tar") == ["a"]


def test_a_list_file_names_paths_and_globs(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar", "sub/b.tar", "sub/c.tar")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.tar\n\n  {tmp_path}/sub/*.tar  \n")
    assert names(tmp_path / "list.txt") == ["a", "b", "c"]


def test_a_shard_given_twice_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar")
    assert names(f"{tmp_path}/a.tar", f"{tmp_path}/*.tar") == ["a"]


def test_a_shard_that_two_globs_name_differently_is_read_once_or_refused(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.tar")
    try:
        shards = match_shards([f"{tmp_path}/*/a.tar", f"{tmp_path}/sub/*.tar"])
    except InputError as error:
        assert "a.tar" in str(error)  # noqa: PT017 - refusing is as good as reading once
    else:
        assert len(shards) == 1


@pytest.mark.parametrize(
    "files", [("x/a.tar", "y/a.tar"), ("x/a.tar", "x/a.parquet")], ids=["folders", "formats"]
)
def test_two_shards_of_one_name_are_refused(tmp_path: Path, files: tuple[str, str]) -> None:
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=r"would both be named 'a'; rename one, or if they"):
        names(*(tmp_path / file for file in files))


def test_no_shards_are_refused() -> None:
    with pytest.raises(InputError, match="no shards given; wanted paths, globs or list files"):
        match_shards([])


def test_an_empty_list_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(InputError, match="no shards given"):
        names(tmp_path / "list.txt")


@pytest.mark.parametrize("pattern", ["*.tar", "a.tar", "list.txt"])
def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="matches no file; check the path and the quotes"):
        names(tmp_path / pattern)


def test_an_unknown_filesystem_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"nowhere: is not read; wanted a local path .*gs://"):
        match_shards(["nowhere://x/*.tar"])


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip")
    with pytest.raises(InputError, match=r"a.zip: unknown shard format '.zip'; known are .tar"):
        match_shards([str(tmp_path / "a.zip")])


@pytest.mark.parametrize("use", [count_records, lambda shard: list(read_records(shard))])
def test_a_shard_of_unknown_format_is_refused(tmp_path: Path, use: object) -> None:
    touch(tmp_path, "a.zip")
    with pytest.raises(InputError, match=r"unknown shard format '.zip'"):
        use(tiny.shard("a", tmp_path / "a.zip"))


def test_keys_are_unique_across_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiny.write_tar(tmp_path / "day1" / "a.tar", tiny.image_members(rng, 2))
    tiny.write_parquet(tmp_path / "day2" / "a.parquet", {"image": [b"x", b"y"]})
    shards = match_shards([f"{tmp_path}/day*/*"])
    keys = [record.key for shard in shards for record in read_records(shard)]
    assert keys == ["day1/a/0000", "day1/a/0001", "day2/a/0", "day2/a/1"]
    assert [count_records(shard) for shard in shards] == [2, 2]


@pytest.mark.parametrize("extension", ["tar", "parquet"])
def test_a_key_seen_again_is_a_rejected_duplicate(tmp_path: Path, extension: str) -> None:
    keys = ["a", "b", "a", "a"]
    path = tmp_path / f"s.{extension}"
    if extension == "tar":
        tiny.write_tar(path, [(name, b"x") for name in ("a.png", "b.png", "a.png", "b.cls")])
        keys[3] = "b"
    else:
        tiny.write_parquet(path, {"key": keys, "image": [b"x"] * 4})
    records = list(read_records(tiny.shard("s", path)))
    assert [record.key for record in records] == [f"s/{key}" for key in keys]
    assert [record.status for record in records] == ["ok", "ok", "duplicate", "duplicate"]
    assert records[2].error == "this key came before in the same shard"
    assert records[2].image == b""


def test_compression_is_not_guessed_from_the_name(tmp_path: Path) -> None:
    path = tiny.write_tar(tmp_path / "a.gz.tar", [("a.png", b"x")])
    assert count_records(tiny.shard("a", path)) == 1


def test_a_glob_in_the_working_folder_needs_no_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.tar", "b.tar")
    monkeypatch.chdir(tmp_path)
    assert names("*.tar") == ["a", "b"]
    assert names("b.tar") == ["b"]


def test_a_shard_named_like_our_own_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "_receipt.tar")
    with pytest.raises(InputError, match=r"_receipt.tar: names that start with _ are kept"):
        names(f"{tmp_path}/*.tar")


def test_a_shard_put_in_anothers_place_has_another_identity(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar")
    (first,) = match_shards([f"{tmp_path}/a.tar"])
    os.utime(tmp_path / "a.tar", (1, 1))
    (second,) = match_shards([f"{tmp_path}/a.tar"])
    assert (first.name, first.path, first.bytes) == (second.name, second.path, second.bytes)
    assert first.identity != second.identity


def test_a_list_that_names_a_missing_shard_is_blamed_by_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.tar\n\n{tmp_path}/none.tar\n")
    with pytest.raises(InputError, match=r"list.txt, line 3: .*none.tar: matches no file"):
        names(f"{tmp_path}/list.txt")


def test_a_folder_is_refused_with_the_glob_to_give(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    with pytest.raises(
        InputError, match=r"unknown shard format .* glob in quotes: '.*/day/\*.tar'"
    ):
        names(f"{tmp_path}/day")


def test_names_as_tensorflow_numbers_them_are_tfrecord(tmp_path: Path) -> None:
    for name in (
        "train-00000-of-00002",
        "train.tfrecord-00001-of-00002",
        "x.tfrecords",
        "y.tar.gz",
    ):
        (tmp_path / name).write_bytes(b"")
    shards = match_shards([f"{tmp_path}/*"])
    wanted = ["train-00000-of-00002", "train.tfrecord-00001-of-00002", "x", "y"]
    assert [shard.name for shard in shards] == wanted
    assert [count_records(shard) for shard in shards] == [0, 0, 0, 1]


def test_many_images_of_a_folder_are_several_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "FILES_PER_SHARD", 2)
    for name in ("x/a.jpg", "x/b.jpg", "x/c.jpg", "y/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    shards = match_shards([f"{tmp_path}/*/*.jpg"])
    assert [shard.name for shard in shards] == [
        "x/images-00000",
        "x/images-00001",
        "y/images-00000",
    ]
    assert [len(list(read_records(shard))) for shard in shards] == [2, 1, 1]


@pytest.mark.parametrize("generation", [0, 7])
@pytest.mark.parametrize("path", ["gs://bucket/a.tar", "/x, 3 bytes, modified now/b, c.tar"])
def test_an_identity_names_the_path(path: str, generation: int) -> None:
    shard = Shard("a", path, 3, 1.0, generation=generation)
    assert path_of(shard.identity) == path
    assert path_of("something else") == ""


@pytest.mark.parametrize("name", ["a.tar", "plain.png"])
def test_a_shard_is_the_same_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    (here,) = match_shards((f"in/{name}",))
    (there,) = match_shards((f"{tmp_path}/in/{name}",))
    assert here == there
