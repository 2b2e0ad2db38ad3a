"""The pool ends what it is asked to end, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from apache_beam.portability.api import beam_fn_api_pb2

from launch import worker_pool
from launch.worker_pool import WorkerPool, end


@dataclass(frozen=True)
class Connection:
    """Who asks."""

    name: str

    def peer(self) -> str:
        return self.name


A, B, C = Connection("a"), Connection("b"), Connection("c")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """A pool whose workers sleep."""
    monkeypatch.setattr(worker_pool, "_COMMAND", [sys.executable, "-c", "input()", "--"])
    made, started = WorkerPool(), []
    real = subprocess.Popen

    def sleeper(*given: Any, **kwargs: Any) -> Any:
        started.append(real(*given, **kwargs, stdin=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(worker_pool.subprocess, "Popen", sleeper)
    yield made
    for process in started:
        process.kill()
        process.communicate()


def ask(pool: WorkerPool, what: str, who: Connection, worker: str = "1-1") -> None:
    request = getattr(beam_fn_api_pb2, f"{what}WorkerRequest")(worker_id=worker)
    assert not getattr(pool, f"{what}Worker")(request, who).error


def alive(pool: WorkerPool) -> list[str]:
    return [each.peer for each in pool.workers if each.process.poll() is None]


def test_two_taskmanagers_that_give_their_workers_the_same_id_end_their_own(
    pool: WorkerPool,
) -> None:
    ask(pool, "Start", A)
    ask(pool, "Start", B)
    ask(pool, "Stop", B)
    assert alive(pool) == ["a"]
    assert pool.workers[0].process.args[-2:] == ["--id=1-1", "--provision_endpoint="]


def test_a_taskmanager_that_has_connected_anew_ends_a_worker_that_must_be_its_own(
    pool: WorkerPool,
) -> None:
    ask(pool, "Start", A)
    ask(pool, "Start", B)
    ask(pool, "Stop", C)
    assert alive(pool) == ["a", "b"]
    ask(pool, "Stop", A)
    ask(pool, "Start", A, worker="2-1")
    ask(pool, "Stop", C)
    assert alive(pool) == ["a"]
    assert [each.id for each in pool.workers if each.process.poll() is None] == ["2-1"]


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "END_SECONDS", 0.1)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end(process)
        assert process.returncode == -9
