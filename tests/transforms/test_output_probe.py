import errno
import os
from pathlib import Path
from typing import Any

import pytest

from policy.errors import InputError
from transforms.commit import Output
from transforms.output_probe import (
    Probe,
    missing_folders,
    remove,
    sees_launcher,
    try_writing,
    write_launcher,
)


def test_a_folder_that_does_as_an_output_must_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    probe, made = Probe.of(f"{root}/"), missing_folders(str(root))
    said, clock = try_writing(probe)
    assert said.startswith(f"{root}: written, listed, read, kept, replaced, removed; ")
    assert said.endswith("GB free")
    assert clock == pytest.approx(0, abs=5)
    remove(probe, made)
    assert not list(tmp_path.iterdir())


def test_folders_that_were_there_or_are_not_empty_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    probe, made = Probe.of(f"{tmp_path}/a/b"), missing_folders(f"{tmp_path}/a/b")
    try_writing(probe)
    (tmp_path / "a/b/of_another").write_text("stays")
    remove(probe, made)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "of_another"]


def test_only_who_sees_the_same_place_sees_the_launchers_file(tmp_path: Path) -> None:
    ours, theirs = Probe(f"{tmp_path}/a", "t"), Probe(f"{tmp_path}/b", "t")
    assert write_launcher(ours) == pytest.approx(0, abs=5)
    assert sees_launcher(ours)
    assert not sees_launcher(theirs)
    write_launcher(theirs)
    Path(f"{theirs.folder}/launcher").write_text("of another launcher")
    assert not sees_launcher(theirs)


def test_two_checks_of_one_output_do_not_meet(tmp_path: Path) -> None:
    one, two = Probe.of(str(tmp_path)), Probe.of(str(tmp_path))
    write_launcher(one)
    write_launcher(two)
    remove(one, ())
    assert sees_launcher(two)


@pytest.mark.parametrize(
    ("method", "double", "message"),
    [
        ("create", lambda *_: False, "a file of a new name was there already"),
        ("create", "always", "a file that stood was written over"),
        ("replace", lambda *_: None, "still has its old content"),
        ("delete", lambda *_: None, "a file that was removed is still listed"),
    ],
)
def test_a_place_that_does_not_do_as_an_output_must_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, double: Any, message: str
) -> None:
    def always(self: Output, name: str, content: bytes) -> bool:
        self.replace(name, content)
        return True

    monkeypatch.setattr(Output, method, always if double == "always" else double)
    with pytest.raises(InputError, match=f"{message}.* cannot be kept apart"):
        try_writing(Probe.of(str(tmp_path)))


def test_a_place_whose_listing_is_late_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.output_probe.existing", lambda *_: set())
    with pytest.raises(InputError, match="a file that was just written is not listed"):
        try_writing(Probe.of(str(tmp_path)))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    probe = Probe.of(str(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        try_writing(probe)
    remove(probe, ())
    assert not list(tmp_path.iterdir())


def test_in_a_bucket_nothing_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(Output, "delete_folder", lambda self, _: deleted.append(self.path))
    assert missing_folders("gs://b/c") == ()
    remove(Probe("gs://b/c", "t"), ())
    assert deleted == ["gs://b/c/_preflight.t"]


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe.of(str(tmp_path))
    write_launcher(probe)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(InputError, match=rf"{probe.folder}: cannot be removed"):
        remove(probe, ())
