import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policy import files
from policy.errors import InputError
from policy.files import delete, exists, place, place_copy, read_bytes, write_bytes


@pytest.fixture(params=["", "file://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder as a plain path, and as the URL of another filesystem would be."""
    return f"{request.param}{tmp_path}"


def test_what_is_written_reads_back_in_folders_made_for_it(folder: str) -> None:
    write_bytes(f"{folder}/new folder/file", b"one")
    write_bytes(f"{folder}/new folder/file", b"two")
    assert exists(f"{folder}/new folder/file")
    assert read_bytes(f"{folder}/new folder/file", "it") == b"two"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_bytes(str(tmp_path / "file"), b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_can_be_deleted_twice(folder: str) -> None:
    write_bytes(f"{folder}/file", b"one")
    delete(f"{folder}/file")
    delete(f"{folder}/file")
    assert not exists(f"{folder}/file")


def test_a_missing_file_is_named(folder: str) -> None:
    with pytest.raises(InputError, match=r"none: the policy cannot be read: .*No such file"):
        read_bytes(f"{folder}/none", "the policy")


def test_a_file_of_more_bytes_than_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(str(tmp_path / "f"), "the policy", 5) == b"12345"
    with pytest.raises(InputError, match=r"/f: the policy has more than 4 bytes; is it another"):
        read_bytes(str(tmp_path / "f"), "the policy", 4)


def failing(error: int, *, on: int = 1) -> Callable[..., None]:
    """A function of os that fails the n-th time it is called."""
    calls: list[object] = []

    def fail(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        if len(calls) == on:
            raise OSError(error, os.strerror(error))

    return fail


def test_a_file_is_placed_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert place(b"content", tmp_path / "attempt", tmp_path / "final", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final").read_bytes() == b"content"


def test_a_file_that_stands_is_left_alone_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "final").write_bytes(b"theirs")
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert not place(b"ours", tmp_path / "attempt", tmp_path / "final", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final").read_bytes() == b"theirs"


def test_a_copy_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    monkeypatch.setattr(os, "link", failing(errno.EOPNOTSUPP))
    place_copy(tmp_path / "source", tmp_path / "tries/attempt", tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"new"
    assert not list((tmp_path / "tries").iterdir())


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_half_a_file_on_a_full_disk_is_removed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(os, step, failing(errno.ENOSPC))
    final = tmp_path / "final"
    with pytest.raises(OSError, match="No space left on device") as raised:
        place(b"content", tmp_path / "attempt", final, replace=False)
    assert raised.value.filename == str(final)
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, on=2))
    with pytest.raises(OSError, match="Input/output error") as raised:
        place(b"content", tmp_path / "attempt", tmp_path / "final")
    assert raised.value.filename == str(tmp_path)


def test_a_copy_that_cannot_be_made_names_where_it_was_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    monkeypatch.setattr(os, "link", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space") as raised:
        place_copy(tmp_path / "source", tmp_path / "attempt", tmp_path / "final")
    assert raised.value.filename == str(tmp_path / "final")


def test_every_folder_that_is_made_is_synced_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    place(b"", tmp_path / "attempt", tmp_path / "a/b/final")
    folders = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "attempt")]
    assert synced == [*folders, str(tmp_path / "a/b")]


@pytest.mark.parametrize("emulator", [None, "http://127.0.0.1:1"])
def test_google_is_asked_where_the_environment_says(
    emulator: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(files.pafs, "GcsFileSystem", asked.update)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    if emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    assert files.filesystem_of("gs://shelf/a b") == (None, "shelf/a b")
    where = {"anonymous": True, "scheme": "http", "endpoint_override": "127.0.0.1:1"}
    assert asked.pop("retry_time_limit").total_seconds() == 120  # type: ignore[attr-defined]
    assert asked == (where if emulator else {})
