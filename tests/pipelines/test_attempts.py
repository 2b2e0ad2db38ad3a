import os
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError

from pipelines import attempts
from pipelines.attempts import (
    HANDED_OVER,
    OLD_SECONDS,
    clean_attempts,
    clean_bucket,
    remove_done,
    remove_own,
)
from pipelines.claim import LOCK
from pipelines.lease import this_machine
from policy.errors import Unavailable
from transforms.commit import ATTEMPTS, Output
from transforms.files import FoundFile

HERE = this_machine()
RANDOM = "0123456789abcdef"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / LOCK).write_bytes(b"")
    return tmp_path


def attempt(output: Path, run: str, age_seconds: float = 0.0) -> Path:
    """The folder of a run with one file, both as old as that by the filesystem's clock."""
    folder = output / ATTEMPTS / run
    folder.mkdir(parents=True)
    file = folder / "half.parquet"
    file.write_bytes(b"half")
    then = (output / LOCK).stat().st_mtime - age_seconds
    for path in (file, folder):
        os.utime(path, (then, then))
    return folder


def clean(output: Path, run: str = "ours") -> int:
    return clean_attempts(str(output), run, output / LOCK)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_dead_run_of_this_machine_left_goes_however_young(output: Path) -> None:
    folder = attempt(output, f"{HERE}.{dead_pid()}.{RANDOM}")
    assert clean(output) == 1
    assert not folder.exists()


def test_what_a_living_run_of_this_machine_writes_stays_however_old(output: Path) -> None:
    folder = attempt(output, f"{HERE}.{os.getppid()}.{RANDOM}", 10 * OLD_SECONDS)
    assert clean(output) == 0
    assert (folder / "half.parquet").exists()


@pytest.mark.parametrize(("age", "left"), [(0.9, True), (1.1, False)])
def test_of_another_machines_run_age_decides(output: Path, age: float, left: bool) -> None:  # noqa: FBT001
    folder = attempt(output, f"elsewhere.example.{os.getpid()}.{RANDOM}", age * OLD_SECONDS)
    assert clean(output) == (not left)
    assert folder.exists() == left


def test_age_is_by_the_filesystems_clock_not_by_ours(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = attempt(output, f"elsewhere.1.{RANDOM}", 60)
    monkeypatch.setattr("time.time", lambda: 4e9)  # a clock that jumped a century
    assert clean(output) == 0
    assert folder.exists()


def test_one_young_file_keeps_an_old_folder(output: Path) -> None:
    folder = attempt(output, f"elsewhere.1.{RANDOM}", 2 * OLD_SECONDS)
    (folder / "young.parquet").write_bytes(b"")
    assert clean(output) == 0


def test_what_this_run_writes_is_never_removed(output: Path) -> None:
    folder = attempt(output, f"{HERE}.{dead_pid()}.{RANDOM}", 2 * OLD_SECONDS)
    assert clean(output, run=folder.name) == 0
    assert folder.exists()


def test_files_of_a_version_without_folders_go(output: Path) -> None:
    (output / ATTEMPTS).mkdir()
    (output / ATTEMPTS / "s0.0123.parquet").write_bytes(b"half")
    assert clean(output) == 0
    assert not list((output / ATTEMPTS).iterdir())


@pytest.mark.parametrize("name", ["x", "a.b", f"{HERE}.notapid.{RANDOM}", f"{HERE}..x"])
def test_a_folder_that_names_no_run_goes_by_its_age(output: Path, name: str) -> None:
    folder = attempt(output, name)
    assert clean(output) == 0
    then = (output / LOCK).stat().st_mtime - 2 * OLD_SECONDS
    for path in (folder / "half.parquet", folder):
        os.utime(path, (then, then))
    assert clean(output) == 1


def test_nothing_to_clean_is_no_error(output: Path) -> None:
    assert clean(output) == 0


def test_a_link_out_of_the_output_is_not_followed(output: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"")
    (output / ATTEMPTS).mkdir()
    (output / ATTEMPTS / f"{HERE}.{dead_pid()}.{RANDOM}").symlink_to(precious)
    clean(output)
    assert (precious / "file").exists()


def test_a_file_that_vanishes_meanwhile_is_no_error(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of another machine gives its attempt the final name while we look at its age."""
    folder = attempt(output, f"elsewhere.1.{RANDOM}")
    listed = list(folder.iterdir())
    (folder / "half.parquet").unlink()
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda p: iter(listed) if p == folder else real(p))
    assert clean(output) == 0
    assert folder.exists()


def test_a_runs_own_folder_goes_at_its_end_and_others_stay(output: Path) -> None:
    attempt(output, "ours")
    other = attempt(output, f"elsewhere.1.{RANDOM}")
    remove_own(Output(str(output), "ours"))
    assert [path.name for path in (output / ATTEMPTS).iterdir()] == [other.name]


def test_the_last_run_removes_the_folder_of_attempts(output: Path) -> None:
    attempt(output, "ours")
    for _ in range(2):
        remove_own(Output(str(output), "ours"))
        assert not (output / ATTEMPTS).exists()


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of a bucket that are removed."""
    found: list[str] = []
    monkeypatch.setattr(
        Output, "delete_folder", lambda self, name: found.append(f"{self.path}/{name}")
    )
    return found


def test_a_bucket_loses_a_runs_own_files_at_its_end(removed: list[str]) -> None:
    remove_own(Output("gs://b/labels", "ours"))
    assert removed == ["gs://b/labels/_attempts/ours"]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the bucket: a dead run's list, and that of one that was handed over."""
    names = ("dead/shards.jsonl", f"handed/{HANDED_OVER}", "handed/shards.jsonl")
    found = {name: FoundFile(name, 1, 0.0) for name in names}
    monkeypatch.setattr(attempts, "found_files", lambda _: found)


@pytest.mark.usefixtures("listed")
def test_what_dead_runs_left_in_a_bucket_goes_and_what_a_service_reads_stays(
    removed: list[str],
) -> None:
    clean_bucket(Output("gs://b/labels", "ours"))
    assert removed == ["gs://b/labels/_attempts/dead"]


@pytest.mark.usefixtures("listed")
def test_where_nothing_is_locked_another_run_keeps_its_files(removed: list[str]) -> None:
    clean_bucket(Output("s3://b/labels", "ours"))
    assert not removed


@pytest.mark.parametrize(("scheme", "gone"), [("gs", ""), ("s3", "/ours")])
def test_a_bucket_with_a_whole_result_needs_nothing_of_those_that_hold_it_one_by_one(
    removed: list[str], scheme: str, gone: str
) -> None:
    remove_done(Output(f"{scheme}://b/labels", "ours"))
    assert removed == [f"{scheme}://b/labels/_attempts{gone}"]


def handed(output: Path, age_seconds: float) -> Path:
    folder = attempt(output, f"{HERE}.{dead_pid()}.{RANDOM}")
    (folder / HANDED_OVER).touch()
    then = (output / LOCK).stat().st_mtime - age_seconds
    for path in (folder / "half.parquet", folder / HANDED_OVER, folder):
        os.utime(path, (then, then))
    return folder


@pytest.mark.parametrize(("age", "left"), [(0.9, True), (1.1, False)])
def test_of_a_run_that_was_handed_over_age_decides(output: Path, age: float, left: bool) -> None:  # noqa: FBT001
    folder = handed(output, age * OLD_SECONDS)
    assert clean(output) == (not left)
    assert folder.exists() == left


def test_what_was_handed_over_goes_with_a_whole_result(output: Path) -> None:
    handed(output, 0)
    attempt(output, "ours")
    other = attempt(output, f"elsewhere.1.{RANDOM}")
    remove_done(Output(str(output), "ours"))
    assert [path.name for path in (output / ATTEMPTS).iterdir()] == [other.name]


@pytest.mark.parametrize("error", [BeamIOError("no"), Unavailable("gs://b does not answer")])
def test_failing_to_clean_up_does_not_fail_a_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Output, "delete_folder", fails)
    remove_own(Output("gs://b/labels", "ours"))
