from pathlib import Path

import pytest

from policy.errors import InputError
from policy.files import delete, exists, read_bytes, write_bytes


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
