import threading
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.portability import python_urns
from apache_beam.portability.api.org.apache.beam.model.fn_execution.v1.beam_fn_api_pb2 import (
    InstructionRequest,
)
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    ControlConnection,
    WorkerHandler,
)

from pipelines.mortal_workers import MortalWorkerHandler
from policy.errors import Unavailable


@pytest.fixture
def dead() -> Any:
    """A handler whose worker process has just ended, with one request still waiting."""
    ended = threading.Thread(target=lambda: None)
    ended.start()
    connection = ControlConnection()
    waiting = connection.push(InstructionRequest(instruction_id="1"))
    handler = SimpleNamespace(worker_thread=ended, control_conn=connection)
    MortalWorkerHandler._watch(handler)
    return SimpleNamespace(connection=connection, waiting=waiting)


def test_what_waits_for_a_dead_worker_fails_with_the_remedy(dead: Any) -> None:
    with pytest.raises(Unavailable, match=r"worker process ended .* Run the same command again"):
        dead.waiting.get(timeout=10)


def test_what_is_asked_of_a_dead_worker_fails_at_once(dead: Any) -> None:
    with pytest.raises(Unavailable, match="worker process ended"):
        dead.connection.push(InstructionRequest(instruction_id="2"))


def test_a_dead_worker_can_be_closed(dead: Any) -> None:
    dead.connection.close()


def test_beam_uses_it_for_its_worker_processes() -> None:
    known = WorkerHandler._registered_environments[python_urns.SUBPROCESS_SDK][0]
    assert known is MortalWorkerHandler
