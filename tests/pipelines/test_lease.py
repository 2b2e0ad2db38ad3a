import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bucket import TinyBucket

from pipelines import lease
from pipelines.claim import claimed
from pipelines.lease import alive, leased, this_machine
from policy.errors import OutputInUse, Unavailable
from transforms import bucket

ROOT = Path(__file__).parents[2]
PATH = "gs://shelf/labels/_lock"
OURS = {"run": f"{this_machine()}.{os.getpid()}.ours", "since": "now"}


@pytest.fixture(autouse=True)
def shelf(monkeypatch: pytest.MonkeyPatch) -> TinyBucket:
    """An empty bucket, and a lease that is renewed, and dead, a thousand times sooner."""
    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease, "DEAD_SECONDS", 0.2)
    return tiny


def gone() -> int:
    """The number of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def held_by(run: str) -> None:
    """Leave a lease behind, as a run that was killed does."""
    assert bucket.create(PATH, json.dumps({"run": run, "since": "then", "renewed": 3}).encode())


def seconds(body: Callable[[], object]) -> float:
    start = time.monotonic()
    body()
    return time.monotonic() - start


def take() -> None:
    with leased(PATH, OURS):
        assert b"ours" in bucket.read(PATH)[0]  # type: ignore[index]


def test_a_lease_is_there_while_it_is_held_and_gone_after(shelf: TinyBucket) -> None:
    take()
    assert shelf.objects == {}


def test_a_lease_is_renewed_while_it_is_held() -> None:
    with leased(PATH, OURS):
        deadline = time.monotonic() + 5
        while json.loads(bucket.read(PATH)[0])["renewed"] < 3:  # type: ignore[index]
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_lease_that_is_renewed_keeps_others_out() -> None:
    with (
        claimed("gs://shelf/labels"),
        pytest.raises(OutputInUse, match=r"_lock: run .*, since .* writes to this output; wait"),
        claimed("gs://shelf/labels"),
    ):
        pytest.fail("two hold it")


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once() -> None:
    held_by(f"{this_machine()}.{gone()}.dead")
    assert seconds(take) < 0.15


@pytest.mark.parametrize(
    "run",
    ["elsewhere.1.x", f"{this_machine()}.{os.getpid()}.x", "no name of ours", "1.2"],
    ids=["of another machine", "of a process that lives", "without a name", "with half a name"],
)
def test_any_other_is_taken_over_when_it_was_not_renewed_for_long(run: str) -> None:
    held_by(run)
    assert seconds(take) >= 0.2


def test_a_damaged_lease_is_taken_over_when_it_was_not_renewed_for_long() -> None:
    bucket.create(PATH, b"\xff{")
    take()


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the process would have ended."""
    reasons: list[str] = []
    monkeypatch.setattr(lease, "leave", reasons.append)
    return reasons


def test_who_lost_its_lease_ends_at_once_and_leaves_its_successors(
    shelf: TinyBucket, left: list[str]
) -> None:
    with leased(PATH, OURS):
        bucket.replace(PATH, json.dumps({"run": "other", "since": "now"}).encode())
        time.sleep(0.2)
        assert left == [f"{PATH}: this run's lease was lost; run again when no other does"]
    assert len(shelf.objects) == 1  # the other's


def test_who_cannot_renew_its_lease_for_long_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, left: list[str]
) -> None:
    def fail(*_: object) -> bool:
        raise Unavailable("no network")

    with leased(PATH, OURS):
        monkeypatch.setattr(bucket, "swap", fail)
        time.sleep(0.1)
        assert left == []
        time.sleep(0.3)
        assert len(left) == 1


def test_a_process_that_leaves_says_why_and_has_the_exit_code_of_an_output_in_use() -> None:
    code = "from pipelines.lease import leave; leave('lost it')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == OutputInUse.exit_code
    assert "lost it" in ended.stderr


def test_a_request_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swap, failed = bucket.swap, []

    def unsteady(path: str, content: bytes, generation: int) -> int | None:
        if len(failed) < 2:
            failed.append(content)
            if len(failed) == 2:
                swap(path, content, generation)  # carried out, but the response is lost
            raise Unavailable("connection reset")
        return swap(path, content, generation)

    with leased(PATH, OURS):
        monkeypatch.setattr(bucket, "swap", unsteady)
        time.sleep(0.3)
    assert len(failed) == 2
    assert "could not be renewed, trying again: connection reset" in caplog.text


def test_a_process_is_alive_until_it_is_over() -> None:
    assert alive(os.getpid())
    assert alive(1)  # somebody else's, perhaps
    assert not alive(gone())


def test_a_lease_that_cannot_be_given_back_does_not_undo_what_was_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object) -> None:
        raise Unavailable("gs://shelf does not answer")

    monkeypatch.setattr(bucket, "delete", silent)
    take()
    assert bucket.read(PATH) is not None
