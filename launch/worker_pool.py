"""A pool of worker processes for Beam's EXTERNAL environment, on the loopback interface alone.

Beam's own pool listens on every interface, to whoever asks, starts whatever `python` comes first on
the path, and where two TaskManagers share it ends the workers of one for the other, as both count
their workers from 1. This one is bound to 127.0.0.1, runs this very interpreter and adalabel, and
tells who asks by the connection.
"""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from policy.errors import Unavailable

END_SECONDS = 10.0
"""So long a worker may take to end before it is killed."""

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # or a second pool would take half of the first one's requests
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
]
_COMMAND = [sys.executable, "-m", "launch.worker"]


@dataclass(frozen=True)
class Worker:
    """A process, the id the runner gave it, and the connection it was asked for by."""

    id: str
    peer: str
    process: "subprocess.Popen[bytes]"


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts and ends workers as runners ask; the names of its methods are Beam's."""

    def __init__(self) -> None:
        """Start with no workers."""
        self.workers: list[Worker] = []
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        """Start one; it asks at the provision endpoint for all else."""
        given = (
            f"--id={request.worker_id}",
            f"--provision_endpoint={request.provision_endpoint.url}",
        )
        path = os.pathsep.join(sys.path)
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*_COMMAND, *given], env={**os.environ, "PYTHONPATH": path}
        )
        with self._lock:
            self.workers = [each for each in self.workers if each.process.poll() is None]
            self.workers.append(Worker(request.worker_id, context.peer(), process))
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        """End the one that was asked for by this connection.

        By another connection, only where no two have this id. A worker that nobody ends here ends
        by itself when its runner leaves it.
        """
        with self._lock:
            named = [each for each in self.workers if each.id == request.worker_id]
        theirs = [each for each in named if each.peer == context.peer()]
        for worker in theirs or (named if len(named) == 1 else []):
            end(worker.process)
        return beam_fn_api_pb2.StopWorkerResponse()


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, by SIGKILL if SIGTERM is not enough."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(port: int) -> None:
    """Start workers for the runner on this machine until SIGTERM or SIGINT; then end them all.

    Raises Unavailable where the port is taken.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pool = WorkerPool()
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=_OPTIONS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise Unavailable(f"port {port} of 127.0.0.1 cannot be had: {error}") from error
    server.start()
    stop.wait()
    server.stop(grace=1).wait()
    for worker in pool.workers:
        end(worker.process)
