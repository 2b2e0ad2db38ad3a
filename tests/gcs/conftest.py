"""The emulator of gs://, started once, and a server before it that can make requests fail."""

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gcs.front import Front, before

from transforms import bucket
from transforms.at_once import at_once

INSTALLED = sorted((Path(__file__).parent / "bin").glob("fake-gcs-server-*"))


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """The host and port of a real server of the same interface."""
    server = str(INSTALLED[-1]) if INSTALLED else shutil.which("fake-gcs-server")
    if server is None:
        pytest.skip("no emulator of gs://: run tests/gcs/install, which needs go")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    flags += ["-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    running = subprocess.Popen([server, *flags])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


def _forget_client() -> None:
    """Close the connections of the tests before, so that no later test is told of them."""
    if bucket.client.cache_info().currsize:
        bucket.client().close()
    bucket.client.cache_clear()


@pytest.fixture(scope="module")
def module_front(emulator: str) -> Iterator[Front]:
    """What the clients of a module's tests are told is gs://."""
    with before(emulator) as front, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", front.url)
        _forget_client()
        yield front
        _forget_client()


@pytest.fixture
def front(module_front: Front) -> Iterator[Front]:
    """The same, which counts from here on and fails nothing yet."""
    module_front.forget()
    yield module_front
    module_front.forget()
    module_front.tell(page_size=None)


@pytest.fixture
def shelf(front: Front) -> Iterator[str]:
    """The URL of an empty bucket."""
    made = bucket.client().create_bucket(f"shelf-{secrets.token_hex(4)}")
    front.forget()
    yield f"gs://{made.name}"
    front.forget()
    at_once(lambda blob: blob.delete(), list(bucket.client().list_blobs(made)))
    made.delete()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated soon and not for long; one that stalls is given up after 2 s."""
    monkeypatch.setattr(bucket, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(bucket, "TRY_SECONDS", 20.0)
    monkeypatch.setattr(bucket, "ANSWER_SECONDS", 2.0)
