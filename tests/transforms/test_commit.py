import os
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from transforms.commit import ATTEMPTS, existing, write_once


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


def test_a_file_is_written_into_folders_made_for_it(root: str) -> None:
    write_once(root, "day1/a.parquet", b"content")
    assert files(root) == {"day1/a.parquet": b"content"}


def test_what_was_there_is_replaced(root: str) -> None:
    write_once(root, "a.json", b"a longer first version")
    write_once(root, "a.json", b"second")
    assert files(root) == {"a.json": b"second"}


def test_a_crash_before_the_rename_leaves_the_old_file(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    write_once(root, "sub/a.json", b"old")
    monkeypatch.setattr(Path, "rename", crash)
    monkeypatch.setattr(Remote, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        write_once(root, "sub/a.json", b"new")
    left = files(root)
    assert left.pop("sub/a.json") == b"old"
    ((attempt, content),) = left.items()
    assert attempt.startswith(f"{ATTEMPTS}/sub__a.json.")
    assert content == b"new"
    assert existing(root, ".json") == {"sub/a"}


def test_nothing_half_written_is_ever_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        visible.append({name for name in files(str(tmp_path)) if not name.startswith(ATTEMPTS)})
        real(handle)

    visible: list[set[str]] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    write_once(str(tmp_path), "a.json", b"x" * 100_000)
    assert visible == [set(), {"a.json"}]  # synced before the rename, and its folder after it


def test_two_writers_of_one_file_do_not_meet(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename_after_another_wrote(attempt: Path, final: str) -> None:
        monkeypatch.undo()
        write_once(root, "a.json", b"other")
        attempt.rename(final)

    monkeypatch.setattr(Path, "rename", rename_after_another_wrote)
    write_once(root, "a.json", b"ours")
    assert set(files(root)) == {"a.json"}
    assert files(root)["a.json"] in (b"ours", b"other")


def test_existing_names_what_has_the_extension_below_a_folder(root: str) -> None:
    for name in ("a.json", "a.parquet", "day1/b.json", "day1/x/c.d.json", "json"):
        write_once(root, name, b"")
    assert existing(root, ".json") == {"a", "day1/b", "day1/x/c.d"}
    assert existing(root + "/", ".parquet") == {"a"}


def test_nothing_exists_in_a_folder_that_is_missing(root: str) -> None:
    assert existing(root, ".json") == set()


def test_existing_knows_a_folder_relative_to_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "./out"):
        write_once(folder, "day1/a.json", b"")
        assert existing(folder, ".json") == {"day1/a"}


def test_existing_takes_a_folder_name_with_wildcards_as_it_is(tmp_path: Path) -> None:
    write_once(f"{tmp_path}/run[1]", "a.json", b"")
    assert existing(f"{tmp_path}/run[1]", ".json") == {"a"}
