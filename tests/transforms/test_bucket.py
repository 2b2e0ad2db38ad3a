import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_bucket import TinyBucket

from transforms import bucket
from transforms.commit import Output

ROOT = "gs://shelf/labels"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """The address of a real server of the same interface."""
    server = shutil.which("fake-gcs-server")
    if server is None:
        pytest.skip("needs fake-gcs-server on the PATH: go install .../fake-gcs-server@latest")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    flags += ["-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    running = subprocess.Popen([server, *flags])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield address
    finally:
        running.kill()
        running.wait()


@pytest.fixture(params=["in memory", "emulator"])
def shelf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty bucket `shelf`; all that is said here must hold of both."""
    bucket.client.cache_clear()
    if request.param == "in memory":
        tiny = TinyBucket()
        monkeypatch.setattr(bucket, "client", lambda: tiny)
        yield
        return
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("emulator"))
    made = bucket.client().create_bucket("shelf")
    yield
    made.delete(force=True)
    bucket.client.cache_clear()


pytestmark = pytest.mark.usefixtures("shelf")


def test_what_is_created_stands_and_is_not_created_again() -> None:
    assert bucket.create(f"{ROOT}/day 1/a.json", b"first")
    assert not bucket.create(f"{ROOT}/day 1/a.json", b"second")
    content, generation = bucket.read(f"{ROOT}/day 1/a.json") or (b"", 0)
    assert content == b"first"
    assert generation > 0


def test_of_many_who_create_one_object_one_wins() -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: bucket.create(f"{ROOT}/a", str(n).encode()), range(8)))
    assert won.count(True) == 1
    assert bucket.read(f"{ROOT}/a")[0] == str(won.index(True)).encode()  # type: ignore[index]


def test_an_object_is_swapped_by_one_who_knows_its_generation() -> None:
    bucket.create(f"{ROOT}/a", b"first")
    _, first = bucket.read(f"{ROOT}/a") or (b"", 0)
    assert bucket.swap(f"{ROOT}/a", b"second", first)
    assert not bucket.swap(f"{ROOT}/a", b"third", first)
    assert bucket.read(f"{ROOT}/a")[0] == b"second"  # type: ignore[index]


def test_objects_are_replaced_copied_and_deleted() -> None:
    bucket.replace(f"{ROOT}/a", b"first")
    bucket.replace(f"{ROOT}/a", b"second")
    bucket.replace(f"{ROOT}/b", b"old")
    bucket.copy(f"{ROOT}/a", f"{ROOT}/b")
    for _ in range(2):
        bucket.delete(f"{ROOT}/a")
        assert bucket.read(f"{ROOT}/a") is None
    assert bucket.read(f"{ROOT}/b")[0] == b"second"  # type: ignore[index]


def test_an_output_in_a_bucket_needs_no_attempts() -> None:
    output = Output(ROOT, "run")
    assert output.create("day1/a.json", b"first")
    assert not output.create("day1/a.json", b"second")
    output.replace("day1/a.json", b"third")
    output.copy("day1/a.json", "b.json")
    assert bucket.read(f"{ROOT}/b.json")[0] == b"third"  # type: ignore[index]
    assert bucket.read(f"{ROOT}/day1/a.json")[0] == b"third"  # type: ignore[index]
