import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from tiny_bucket import TinyBucket

from pipelines import lease
from pipelines.claim import claimed
from pipelines.lease import alive, leased
from policy.errors import OutputInUse
from transforms import bucket

PATH = "gs://shelf/labels/_lock"
OURS = {"run": f"{socket.gethostname()}.{os.getpid()}.ours", "since": "now"}


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
        pytest.raises(OutputInUse, match=r"held by another run: .*\"run\""),
        claimed("gs://shelf/labels"),
    ):
        pytest.fail("two hold it")


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once() -> None:
    held_by(f"{socket.gethostname()}.{gone()}.dead")
    assert seconds(take) < 0.15


@pytest.mark.parametrize(
    "run",
    ["elsewhere.1.x", f"{socket.gethostname()}.{os.getpid()}.x", "no name of ours", "1.2"],
    ids=["of another machine", "of a process that lives", "without a name", "with half a name"],
)
def test_any_other_is_taken_over_when_it_was_not_renewed_for_long(run: str) -> None:
    held_by(run)
    assert seconds(take) >= 0.2


def test_a_damaged_lease_is_taken_over_when_it_was_not_renewed_for_long() -> None:
    bucket.create(PATH, b"\xff{")
    take()


def test_who_lost_its_lease_is_told_at_the_end(shelf: TinyBucket) -> None:
    def lose() -> None:
        with leased(PATH, OURS):
            bucket.replace(PATH, json.dumps({"run": "other", "since": "now"}).encode())
            time.sleep(0.2)

    with pytest.raises(OutputInUse, match="another run took this lease over; run again after its"):
        lose()
    assert len(shelf.objects) == 1  # the other's


def test_a_request_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swap, failed = bucket.swap, []

    def unsteady(path: str, content: bytes, generation: int) -> bool:
        if len(failed) < 2:
            failed.append(content)
            if len(failed) == 2:
                swap(path, content, generation)  # carried out, but the response is lost
            raise OSError("connection reset")
        return swap(path, content, generation)

    monkeypatch.setattr(bucket, "swap", unsteady)
    with leased(PATH, OURS):
        time.sleep(0.3)
    assert len(failed) == 2
    assert "could not be renewed, trying again: connection reset" in caplog.text


def test_a_process_is_alive_until_it_is_over() -> None:
    assert alive(os.getpid())
    assert alive(1)  # somebody else's, perhaps
    assert not alive(gone())
