"""A worker process of the local runner that dies stops the run; Beam alone would wait forever.

Importing this replaces Beam's handler of such processes. Beam's handler of Docker containers does
the same already.
"""

import threading
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)

from policy.errors import Unavailable


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class MortalWorkerHandler(SubprocessSdkWorkerHandler):
    """Beam's, but what is asked of a worker that is gone fails with Unavailable."""

    def start_worker(self) -> None:
        """Start the process, and watch it."""
        super().start_worker()
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def _watch(self) -> None:
        self.worker_thread.join()  # until the process has ended; at a good end, nobody waits for it
        gone = Unavailable(
            "a worker process ended by itself (killed, or out of memory); what is done stays done. "
            "Run the same command again, with fewer --workers if memory is short."
        )
        connection, push = self.control_conn, self.control_conn.push

        def refuse(request: Any) -> None:  # noqa: ANN401 - Beam's
            if hasattr(request, "instruction_id"):
                raise gone
            push(request)  # that it is done

        connection.push = refuse  # type: ignore[method-assign, assignment]
        connection.abort(gone)
