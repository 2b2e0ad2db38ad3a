import errno
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from io import FileIO
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from pipelines.claim import LOCK, claimed, in_use
from policy.errors import InputError, OutputInUse

FORK = multiprocessing.get_context("fork")


def hold(root: Path, held: Event, let_go: Event) -> None:
    with claimed(str(root)):
        held.set()
        let_go.wait(60)


@pytest.fixture
def holder(tmp_path: Path) -> tuple[multiprocessing.process.BaseProcess, Event]:
    """Another process that holds tmp_path/out until it is told to let go."""
    held, let_go = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "out", held, let_go))
    process.start()
    assert held.wait(60)
    yield process, let_go
    process.kill()
    process.join()


def test_a_second_run_stops_and_names_the_first(tmp_path: Path, holder: tuple) -> None:
    process, _ = holder
    with (
        pytest.raises(OutputInUse, match=rf"run .*\.{process.pid}\.\w+, since 20.*; wait for"),
        claimed(str(tmp_path / "out")),
    ):
        pytest.fail("held by two")


def test_an_output_is_free_once_its_run_has_ended(tmp_path: Path, holder: tuple) -> None:
    process, let_go = holder
    let_go.set()
    process.join()
    assert not (tmp_path / "out").exists()  # nothing was written, so nothing is left
    with claimed(str(tmp_path / "out")) as run:
        assert str(os.getpid()) in run.split(".")


def test_an_output_is_free_once_its_run_was_killed(tmp_path: Path, holder: tuple) -> None:
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "out" / LOCK).exists()
    with claimed(str(tmp_path / "out")) as run:
        assert json.loads((tmp_path / "out" / LOCK).read_text())["run"] == run


def test_an_output_stays_held_by_a_run_that_hangs(tmp_path: Path, holder: tuple) -> None:
    process, _ = holder
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(OutputInUse), claimed(str(tmp_path / "out")):
        pytest.fail("held by two")


def test_the_lock_of_a_run_that_ends_while_another_opens_it_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has opened the file when its owner removes it: it must not lock what is gone."""
    opens: list[Path] = []

    def open_then_lose_it(path: Path, mode: str) -> FileIO:
        file = FileIO(path, mode)
        opens.append(path)
        if len(opens) == 1:
            path.unlink()  # by the owner, at its end
        return file

    monkeypatch.setattr("pipelines.claim.FileIO", open_then_lose_it)
    with claimed(str(tmp_path)) as run:
        assert len(opens) == 2
        assert json.loads((tmp_path / LOCK).read_text())["run"] == run


def contend(root: Path, inside: Path, until: float, wins: object) -> None:
    while time.monotonic() < until:
        try:
            with claimed(str(root)):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
                inside.unlink()
                with wins.get_lock():
                    wins.value += 1
        except OutputInUse:
            continue


def test_many_who_come_and_go_are_never_two_at_once(tmp_path: Path) -> None:
    wins = FORK.Value("i", 0)
    until = time.monotonic() + 1.5
    arguments = (tmp_path / "out", tmp_path / "inside", until, wins)
    runs = [FORK.Process(target=contend, args=arguments) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * 4
    assert wins.value > 20


def test_each_run_has_a_name_of_its_own_even_in_the_same_second(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with claimed(str(tmp_path)) as run:
            names.add(run)
    assert len(names) == 20


def test_what_stands_in_the_output_stays_when_the_lock_goes(tmp_path: Path) -> None:
    with claimed(str(tmp_path)):
        (tmp_path / "file").write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large") as raised, claimed(str(tmp_path)):
        pytest.fail("the lock was not written")
    assert raised.value.filename == str(tmp_path / LOCK)


def test_a_lock_that_cannot_be_closed_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unclosable(FileIO):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pipelines.claim.FileIO", Unclosable)
    with claimed(str(tmp_path)):
        pass
    assert not tmp_path.exists()


@pytest.mark.parametrize("what", ["a file", "a link to nothing"])
def test_an_output_that_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    if what == "a file":
        (tmp_path / "out").write_bytes(b"")
    else:
        (tmp_path / "out").symlink_to(tmp_path / "none")
    said = pytest.raises(InputError, match=r"out: cannot be an output: Not a directory; wanted")
    with said, claimed(str(tmp_path / "out")):
        pytest.fail("held what is no folder")


@pytest.mark.parametrize("owner", ["", "{}", "[1]", "half a fi", '{"run": 1}'])
def test_an_owner_who_did_not_finish_its_name_is_another_run(owner: str) -> None:
    assert "another run writes to this output" in str(in_use("out", owner))


def test_control_characters_in_an_owners_name_are_escaped() -> None:
    text = str(in_use("out", json.dumps({"run": "a\x1b[2J", "since": "\n"})))
    assert r"run a\x1b[2J, since \n, writes" in text
