"""A pool of worker processes for Beam's EXTERNAL environment, on the loopback interface alone.

Beam's own pool listens on every interface, to whoever asks, and starts whatever `python` comes
first on the path. This one is Beam's servicer bound to 127.0.0.1, starting `adalabel-worker`.
"""

import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import (
    BeamFnExternalWorkerPoolServicer,
    kill_process_gracefully,
)

from policy.errors import Unavailable

_LOG = logging.getLogger("adalabel")
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # or a second pool would take half of the first one's requests
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
]


def serve(port: int) -> None:
    """Start workers for the runner on this machine until SIGTERM or SIGINT; then end them all.

    Raises Unavailable where the port is taken.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="adalabel-pool") as folder:
        pool = BeamFnExternalWorkerPoolServicer(
            use_process=True, container_executable=_command(Path(folder))
        )
        server = grpc.server(ThreadPoolExecutor(max_workers=16), options=_OPTIONS)
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
        try:
            server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            raise Unavailable(f"port {port} of 127.0.0.1 cannot be had: {error}") from error
        server.start()
        _LOG.info("worker pool at 127.0.0.1:%d", port)
        stop.wait()
        server.stop(grace=1).wait()
        for process in list(pool._worker_processes.values()):  # noqa: SLF001 - Beam ends them so too
            kill_process_gracefully(process)


def _command(folder: Path) -> str:
    """A script that runs this very interpreter and adalabel: the pool takes one word."""
    script = folder / "adalabel-worker"
    path = shlex.quote(os.pathsep.join(sys.path))
    python = shlex.quote(sys.executable)
    script.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {python} -m launch.worker "$@"\n')
    script.chmod(0o700)
    return str(script)
