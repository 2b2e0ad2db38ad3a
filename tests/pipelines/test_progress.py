import logging
import sys
import threading
import time

import pytest

from pipelines import progress
from pipelines.progress import line
from policy.errors import Unavailable


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="adalabel")
    return caplog


def test_a_line_says_how_many_how_fast_and_how_long_still() -> None:
    assert line("extract", 20, 50, 10.0) == "extract: 20 of 50 images, 2.0 images/s, 15 s left"


@pytest.mark.parametrize(("finished", "seconds"), [(0, 3.0), (0, 0.0), (5, 0.0)])
def test_without_a_rate_there_is_no_guess_at_the_time_left(finished: int, seconds: float) -> None:
    text = line("classify", finished, 9, seconds)
    assert text == f"classify: {finished} of 9 images, 0.0 images/s, time left unknown"


def test_a_log_gets_a_last_line_with_the_records_of_the_shards_that_are_done(
    log: pytest.LogCaptureFixture,
) -> None:
    done: set[str] = set()
    with progress.progress("extract", {"a": 3, "b": 4, "c": 5}, lambda: done):
        done |= {"a", "c", "a shard of another run"}
    assert [message.split(" images,")[0] for message in log.messages] == ["extract: 8 of 12"]


def test_a_listing_that_fails_leaves_the_last_count(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[int] = []

    def done() -> set[str]:
        listings.append(1)
        if len(listings) > 1:
            raise Unavailable("the bucket does not answer")
        return {"a"}

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    with progress.progress("extract", {"a": 3, "b": 4}, done):
        while len(listings) < 2:
            time.sleep(0.01)
    assert {message.split(" images,")[0] for message in log.messages} == {"extract: 3 of 7"}


def test_the_last_line_comes_even_when_the_run_fails(log: pytest.LogCaptureFixture) -> None:
    before = threading.active_count()
    with (
        pytest.raises(RuntimeError, match="worker lost"),
        progress.progress("extract", {"a": 3}, set),
    ):
        raise RuntimeError("worker lost")
    assert log.messages[0].startswith("extract: 0 of 3 images")
    assert threading.active_count() == before


def test_a_long_run_gets_a_line_every_now_and_then(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with progress.progress("extract", {"a": 3}, set):
        time.sleep(0.2)
    assert 2 <= len(log.messages) <= 12  # one every 0.02 s and the last, not one every 0.001 s


def test_a_terminal_gets_a_bar_and_no_lines(
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.progress("classify", {"a": 3, "b": 1}, lambda: {"a"}):
        pass
    assert "3/4" in capsys.readouterr().err
    assert not log.messages
