import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import pytest
import tiny

from pipelines import bounded
from pipelines.bounded import Child, Teller, end_session, results, serve
from policy.errors import Unavailable

PATIENCE = 60.0
ENDS = """
import sys
from functools import partial
sys.path.insert(0, {folder!r})
from test_bounded import hang
from pipelines.bounded import results
if __name__ == "__main__":
    results(partial(hang, {marker!r}), 600, partial(print, flush=True))
"""


def say_two(teller: Teller) -> None:
    teller.say("one")
    teller.say("two")


def hang(marker: str, teller: Teller) -> None:
    teller.at_end(Path(marker).touch)
    teller.say("begun")
    time.sleep(PATIENCE * 10)


def die(_teller: Teller) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_what_the_work_says_is_handed_on_in_order() -> None:
    said: list[str] = []
    results(say_two, PATIENCE, said.append)
    assert said == ["one", "two"]


def test_work_that_takes_too_long_is_ended_and_undoes_what_it_began(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(TimeoutError):
        results(partial(hang, str(tmp_path / "undone")), 2, said.append)
    assert said == ["begun"]
    assert (tmp_path / "undone").exists()


def test_a_process_that_ends_by_itself_is_told() -> None:
    with pytest.raises(Unavailable, match="ended by itself"):
        results(die, PATIENCE, print)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_command_is_killed_its_work_ends_too(tmp_path: Path, how: signal.Signals) -> None:
    marker = tmp_path / "undone"
    script = tmp_path / "ends.py"
    script.write_text(ENDS.format(folder=str(Path(__file__).parent), marker=str(marker)))
    environment = os.environ | {"PYTHONPATH": f"{tiny.FOLDER.parent}:{tiny.FOLDER}"}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(how)
    wait_for(marker)


def test_a_child_without_a_listener_stops_all_that_it_began_and_leaves() -> None:
    ours, theirs = Pipe()
    child, done = Child(theirs), []

    def fail() -> None:
        raise OSError

    child.at_end(fail)
    child.at_end(lambda: done.append("second"))
    ours.close()
    child.end_with_listener(lambda: done.append("left"))
    assert done == ["second", "left"]


def test_a_child_whose_work_is_done_ends_as_any_process_does() -> None:
    ours, theirs = Pipe()
    child, left = Child(theirs), []
    child.done.set()
    ours.close()
    child.end_with_listener(lambda: left.append("left"))
    assert left == []


def test_the_process_says_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded.os, "setsid", lambda: None)
    monkeypatch.setattr(bounded.logging, "disable", lambda: None)
    monkeypatch.setattr(bounded.Child, "end_with_listener", lambda *_: None)
    ours, theirs = Pipe()
    ours.send(say_two)
    serve(theirs)
    assert [ours.recv() for _ in range(4)] == ["ready", "one", "two", None]


def test_ending_a_session_ends_what_it_started(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/pid; echo started; wait"
    command = ["/bin/sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        end_session(process.pid)
        assert process.stdout.read() == b""  # no process holds it any more
    assert process.returncode == -signal.SIGKILL
    end_session(process.pid)  # gone already
