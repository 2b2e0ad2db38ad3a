"""Whatever becomes of a request or its answer: an operation ends right, or says it gave up.

Every operation of the commit protocol meets every fault, in an order that is always the same.
"""

import json
import os
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from gcs.front import Front
from gcs.plans import Fault, Kind

from pipelines import lease
from pipelines.claim import claimed
from pipelines.lease import leased, this_machine
from policy.errors import InputError, Unavailable
from policy.rows import parquet_bytes
from transforms import bucket, bucket_files
from transforms.commit import Output, existing
from transforms.done import commit_shard, done_before
from transforms.files import read_bytes

pytestmark = [
    pytest.mark.usefixtures("impatient"),
    # google-cloud-storage leaves the socket of a refused download to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAULTS: tuple[Fault, ...] = ("429", "503", "lost", "stall", "cut")


def creates(root: str) -> None:
    assert bucket.create(f"{root}/new", b"ours"), "what is ours was taken for another's"
    assert bucket.read(f"{root}/new") is not None


def finds_another(root: str) -> None:
    assert bucket.create(f"{root}/a", b"ours") is None
    assert content(root, "a") == b"first"


def swaps(root: str) -> None:
    found = bucket.stat(f"{root}/a")
    assert found is not None
    generation = bucket.swap(f"{root}/a", b"ours", int(found.generation))
    assert bucket.read(f"{root}/a") == (b"ours", generation)


def replaces(root: str) -> None:
    bucket.replace(f"{root}/a", b"ours")
    bucket.replace(f"{root}/new", b"ours too")
    assert (content(root, "a"), content(root, "new")) == (b"ours", b"ours too")


def copies(root: str) -> None:
    bucket.copy(f"{root}/a", f"{root}/b")
    bucket.copy(f"{root}/a", f"{root}/new")
    assert content(root, "b") == content(root, "new") == b"first"


def deletes(root: str) -> None:
    bucket.delete(f"{root}/a")
    assert content(root, "a") is None
    assert content(root, "b") == b"second"


def reads(root: str) -> None:
    assert content(root, "a") == b"first"
    assert content(root, "none") is None


def reads_a_range(root: str) -> None:
    with bucket_files.opened(f"{root}/a") as file:
        file.seek(2)
        assert file.read() == b"rst"


def lists(root: str) -> None:
    assert existing(root, "") == {"a", "b"}


OPERATIONS: list[tuple[Callable[[str], None], Kind]] = [
    (creates, "write"),
    (finds_another, "write"),
    (finds_another, "stat"),
    (swaps, "write"),
    (replaces, "write"),
    (replaces, "stat"),
    (copies, "copy"),
    (copies, "stat"),
    (deletes, "delete"),
    (deletes, "stat"),
    (reads, "read"),
    (reads_a_range, "read"),
    (reads_a_range, "stat"),
    (lists, "list"),
]


def content(root: str, name: str) -> bytes | None:
    found = bucket.read(f"{root}/{name}")
    return found[0] if found else None


@pytest.fixture
def root(shelf: str) -> str:
    """A folder with two objects."""
    bucket.create(f"{shelf}/labels/a", b"first")
    bucket.create(f"{shelf}/labels/b", b"second")
    return f"{shelf}/labels"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("operation", "kind"), OPERATIONS)
def test_one_fault_is_made_good(
    front: Front, root: str, operation: Callable[[str], None], kind: Kind, fault: Fault
) -> None:
    front.fail(kind=kind, fault=fault)
    operation(root)
    assert front.failed[fault] == 1


@pytest.mark.parametrize(("operation", "kind"), OPERATIONS)
def test_who_gives_up_says_so(
    front: Front,
    root: str,
    operation: Callable[[str], None],
    kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket, "TRY_SECONDS", 0.3)
    front.fail(kind=kind, fault="503", count=1000)
    said = r"labels.*: .*503.*; what is done stays done\. Check access to the bucket and run"
    with pytest.raises(Unavailable, match=said):
        operation(root)


@pytest.mark.parametrize("fault", ["lost", "stall"])
def test_a_write_whose_answers_are_all_lost_is_found_to_stand(
    front: Front, root: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "TRY_SECONDS", 0.5)
    front.fail(kind="write", fault=fault, count=1000)
    generation = bucket.create(f"{root}/new", b"ours")
    assert bucket.read(f"{root}/new") == (b"ours", generation)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("fault", ["503", "lost", "stall"])
def test_a_large_object_is_written_whole_whichever_request_fails(
    front: Front, root: str, fault: Fault, first: int
) -> None:
    large = os.urandom(9 << 20)  # more than goes into one request
    front.fail(kind="write", fault=fault, first=first)
    assert bucket.create(f"{root}/large", large)
    assert content(root, "large") == large
    assert bucket.create(f"{root}/large", b"another") is None


SAYS = {"made_by": {"policy": "p"}, "input": "a.tar, 1 bytes, generation 1", "shard": "s"}
SCHEMA = pa.schema([("key", pa.string()), ("status", pa.string()), ("error", pa.string())])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [1, 2])
def test_a_shard_is_committed_once_whichever_write_fails(
    front: Front, shelf: str, fault: Fault, first: int
) -> None:
    output = Output(f"{shelf}/labels", "run")
    files = {"s.parquet": parquet_bytes([{"key": "s/0", "status": "ok"}], SCHEMA, SAYS)}
    front.fail(kind="write", fault=fault, first=first)
    says = commit_shard(output, "s.json", files, SAYS, {"started": 1.0})
    assert front.failed[fault] == 1
    front.forget()
    assert existing(output.path, "") == {"s.parquet", "s.json"}
    assert done_before(output, "s.json", SAYS) == says
    again = commit_shard(output, "s.json", files, SAYS, {"started": 2.0})
    assert again["started"] == 1.0, "the first one's marker was replaced"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_lease_is_taken_and_kept_whichever_write_fails(
    front: Front, shelf: str, fault: Fault, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    monkeypatch.setattr(lease, "leave", lost.append)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    front.fail(kind="write", fault=fault, first=first)
    with claimed(f"{shelf}/labels") as run:
        until = time.monotonic() + 30
        while front.requests["write"] < 8 and time.monotonic() < until:
            time.sleep(0.02)
        found = bucket.read(f"{shelf}/labels/_lock")
        assert found is not None
        assert json.loads(found[0])["run"] == run
    assert front.failed[fault] == 1
    assert lost == []
    assert existing(f"{shelf}/labels", "") == set()


def test_a_lease_that_nobody_answers_for_ends_the_run_in_time(
    front: Front, shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a renewal still waits for its answer: a successor does not wait for that."""
    lost: list[str] = []
    monkeypatch.setattr(lease, "leave", lost.append)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease, "DEAD_SECONDS", 1.0)
    with leased(f"{shelf}/_lock", {"run": f"{this_machine()}.1.x", "since": "now"}):
        front.fail(kind="write", fault="stall", count=1000)
        until = time.monotonic() + 15  # the renewal itself tries for longer
        while not lost and time.monotonic() < until:
            time.sleep(0.02)
        assert len(lost) == 1
        front.forget()


def test_the_right_words_where_access_is_refused(
    shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise bucket.Forbidden("no such permission")

    monkeypatch.setattr(bucket.Blob, "download_as_bytes", refuse)
    monkeypatch.setattr(bucket.Blob, "upload_from_string", refuse)
    said = r"access refused: 403 no such permission\. Log in .* Storage Object User"
    with pytest.raises(InputError, match=said):
        bucket.read(f"{shelf}/a")
    with pytest.raises(InputError, match=said):
        bucket.create(f"{shelf}/a", b"")


def test_a_range_that_comes_short_is_not_taken_for_the_end(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket.Blob, "download_as_bytes", lambda *_, **__: b"fi")
    said = r"labels/a: 2 bytes came of 5 from byte 0 on; run the same command again"
    with pytest.raises(Unavailable, match=said), bucket_files.opened(f"{root}/a") as file:
        file.read()


def test_what_is_not_there_cannot_be_read(root: str) -> None:
    with pytest.raises(InputError, match=r"labels/none: the weights cannot be read: .*No such f"):
        read_bytes(f"{root}/none", "the weights")
