import errno
import os
import shutil
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from transforms.commit import ATTEMPTS, Output, existing


class Remote(LocalFileSystem):
    """remote://... in a local folder, with no folders of its own, as an object store."""

    @classmethod
    def scheme(cls) -> str:
        return "remote"

    def create(self, path: str, *options: object) -> object:
        return super().create(path.removeprefix("remote:/"), *options)

    def rename(self, source: list[str], final: list[str]) -> None:
        paths = [name.removeprefix("remote:/") for name in final]
        Path(paths[0]).parent.mkdir(parents=True, exist_ok=True)
        super().rename([name.removeprefix("remote:/") for name in source], paths)

    def exists(self, path: str) -> bool:
        return super().exists(path.removeprefix("remote:/"))

    def open(self, path: str, *options: object, **named: object) -> object:
        return super().open(path.removeprefix("remote:/"), *options, **named)

    def delete(self, paths: list[str]) -> None:
        super().delete([path.removeprefix("remote:/") for path in paths])

    def _list(self, folder: str) -> list[FileMetadata]:
        found = super()._list(folder.removeprefix("remote:/"))
        return [FileMetadata("remote:/" + f.path, f.size_in_bytes) for f in found]


@pytest.fixture(params=["", "remote:/"], ids=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An output folder; everything below must hold on every filesystem."""
    return f"{request.param}{tmp_path}/out"


def files(root: str) -> dict[str, bytes]:
    """All files by path below the root."""
    folder = Path(root.removeprefix("remote:/"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write(root: str, name: str, content: bytes) -> None:
    Output(root, "run").replace(name, content)


def test_a_file_is_written_into_folders_made_for_it(root: str) -> None:
    write(root, "day1/a.parquet", b"content")
    assert files(root) == {"day1/a.parquet": b"content"}


def test_what_was_there_is_replaced(root: str) -> None:
    write(root, "a.json", b"a longer first version")
    write(root, "a.json", b"second")
    assert files(root) == {"a.json": b"second"}


def test_what_is_there_is_left_alone_by_one_who_creates(root: str) -> None:
    output = Output(root, "run")
    assert output.create("day1/a.json", b"first")
    assert not output.create("day1/a.json", b"second")
    assert files(root) == {"day1/a.json": b"first"}
    assert output.read("day1/a.json", "it") == b"first"


def test_the_next_result_is_written_in_a_folder_of_its_own(root: str) -> None:
    Output(root, "run", "_next").create("a.json", b"new")
    assert files(root) == {"_next/a.json": b"new"}


def test_a_copy_replaces_what_had_its_name_and_leaves_the_source(root: str) -> None:
    output = Output(root, "run")
    output.replace("next/a", b"new")
    output.replace("day1/a", b"old")
    for _ in range(2):  # done again after a crash, when both are the same file
        output.copy("next/a", "day1/a")
        assert files(root) == {"next/a": b"new", "day1/a": b"new"}


def test_files_and_folders_are_deleted_once_and_twice(root: str) -> None:
    output = Output(root, "run")
    for name in ("a", "next/a", "next/day1/b"):
        output.replace(name, b"")
    for _ in range(2):
        output.delete("a")
        output.delete_folder("next")
        assert files(root) == {}


@pytest.mark.parametrize("how", ["create", "replace"])
def test_a_crash_before_the_final_name_leaves_the_old_file(
    root: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    output = Output(root, "run")
    if how == "replace":
        output.replace("sub/a.json", b"old")
    monkeypatch.setattr(Path, "rename", crash)
    monkeypatch.setattr(os, "link", crash)
    monkeypatch.setattr(Remote, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        getattr(output, how)("sub/a.json", b"new")
    left = files(root)
    assert left.pop("sub/a.json", None) == (b"old" if how == "replace" else None)
    ((attempt, content),) = left.items()
    assert attempt.startswith(f"{ATTEMPTS}/run/")
    assert attempt.endswith(".sub__a.json")
    assert content == b"new"


def test_nothing_half_written_is_ever_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        visible.append({name for name in files(str(tmp_path)) if not name.startswith(ATTEMPTS)})
        real(handle)

    Output(str(tmp_path), "run").create("first", b"")  # makes the folders
    visible: list[set[str]] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    Output(str(tmp_path), "run").create("a.json", b"x" * 100_000)
    # synced before it gets its name, and its folder after it
    assert visible == [{"first"}, {"first", "a.json"}]


def test_a_note_is_put_down_once_and_synced_by_nobody(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for _ in range(2):
        Output(root, "run").note("_begun/day1/a.begun")
    assert files(root) == {"_begun/day1/a.begun": b""}
    assert not synced


def test_a_note_leaves_what_stands_under_its_name(root: str) -> None:
    write(root, "a.begun", b"theirs")
    Output(root, "run").note("a.begun")
    assert files(root) == {"a.begun": b"theirs"}


def test_of_two_who_create_one_file_one_wins(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def link_after_another_wrote(attempt: Path, final: Path) -> None:
        monkeypatch.undo()
        assert Output(root, "other").create("a.json", b"other")
        os.link(attempt, final)

    if root.startswith("remote"):
        pytest.skip("only what links knows, or a bucket")
    monkeypatch.setattr(os, "link", link_after_another_wrote)
    assert not Output(root, "run").create("a.json", b"ours")
    assert files(root) == {"a.json": b"other"}


def test_long_names_of_shards_do_not_make_longer_names_of_attempts(tmp_path: Path) -> None:
    name = "/".join(["x" * 200] * 5) + "/" + "y" * 250
    assert Output(str(tmp_path), "run").create(name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"


def test_existing_names_what_has_the_extension_below_a_folder(root: str) -> None:
    for name in ("a.json", "a.parquet", "day1/b.json", "day1/x/c.d.json", "json"):
        write(root, name, b"")
    assert existing(root, ".json") == {"a", "day1/b", "day1/x/c.d"}
    assert existing(root + "/", ".parquet") == {"a"}


def test_nothing_exists_in_a_folder_that_is_missing(root: str) -> None:
    assert existing(root, ".json") == set()


def test_existing_knows_a_folder_relative_to_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "./out"):
        write(folder, "day1/a.json", b"")
        assert existing(folder, ".json") == {"day1/a"}


def test_existing_takes_a_folder_name_with_wildcards_as_it_is(tmp_path: Path) -> None:
    write(f"{tmp_path}/run[1]", "a.json", b"")
    assert existing(f"{tmp_path}/run[1]", ".json") == {"a"}


def test_a_file_that_cannot_be_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    output = Output(str(tmp_path), "run")
    output.replace("a.json", b"")
    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OSError, match="Input/output error") as raised:
        output.delete("a.json")
    assert raised.value.filename == str(tmp_path / "a.json")


def test_a_folder_is_gone_at_once_not_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of _next would be taken for the start of the next result."""

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output = Output(str(tmp_path), "run")
    for name in ("_next/a", "_next/day1/b"):
        output.replace(name, b"")
    monkeypatch.setattr(shutil, "rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        output.delete_folder("_next")
    assert all(name.startswith(f"{ATTEMPTS}/run/") for name in files(str(tmp_path)))
    assert len(files(str(tmp_path))) == 2
