"""Work in a process of its own that is ended if it takes too long: a runner may never answer."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, Protocol

from policy.errors import Unavailable

START_SECONDS = 300.0
"""How long the process may take to import what the work needs, on a machine that is busy."""

GRACE_SECONDS = 10.0
"""How long a process that is to end may take to cancel what it began."""


_READY = "ready"


class Teller(Protocol):
    """What the work is given: how to say what it found, and what to do if it must end early."""

    def say(self, found: object) -> None:
        """Hand a result to the process that waits."""

    def at_end(self, stop: Callable[[], object]) -> None:
        """Have this done if the process must end before its work is."""


class Child:
    """The side of the process that works. It ends when nobody listens to it any more."""

    def __init__(self, connection: Connection) -> None:
        """Talk over this connection, whose other end sends nothing more."""
        self.connection = connection
        self.stops: list[Callable[[], object]] = []
        self.done = threading.Event()

    def say(self, found: object) -> None:
        """Hand a result to the process that waits."""
        self.connection.send(found)

    def at_end(self, stop: Callable[[], object]) -> None:
        """Have this done if the process must end before its work is, in the order given."""
        self.stops.append(stop)

    def end_with_listener(self, leave: Callable[[], object]) -> None:
        """Wait until nobody listens; if work is not done then, stop what it began, and leave."""
        with suppress(OSError):
            self.connection.poll(None)  # true at the end of the other side, too
        if self.done.is_set():
            return
        for stop in self.stops:
            with suppress(Exception):  # there is nobody left to tell
                stop()
        leave()


def serve(connection: Connection) -> None:
    """What the process does: the work that it is sent, and say at last that all was said.

    It has a session of its own: what interrupts the command ends this by the connection, in order,
    and what was started here, such as a job server, can be ended with it.
    """
    os.setsid()
    logging.disable()  # what happens is said in results; Beam warns while it is imported
    work: Callable[[Teller], None] = connection.recv()  # imports what it needs
    child = Child(connection)
    leave = partial(end_session, os.getpid())
    threading.Thread(target=child.end_with_listener, args=(leave,), daemon=True).start()
    connection.send(_READY)
    work(child)
    child.done.set()
    connection.send(None)


def end_session(leader: int) -> None:
    """End a process with a session of its own, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def results(work: Callable[[Teller], None], seconds: float, take: Callable[[Any], None]) -> None:
    """Do work in another process, and hand on what it says as it comes.

    Raises TimeoutError if it takes more than so many seconds, Unavailable if the process ends.
    """
    context = get_context("spawn")  # a fork would inherit the threads' locks of Beam and torch
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.send(work)
        _next(ours, monotonic() + START_SECONDS)  # ready
        end = monotonic() + seconds
        while (found := _next(ours, end)) is not None:
            take(found)
    finally:
        ours.close()
        process.join(GRACE_SECONDS)
        if process.is_alive() and process.pid:
            end_session(process.pid)
            process.kill()  # it may not have got as far as a session of its own
        process.join()


def _next(connection: Connection, end: float) -> Any:  # noqa: ANN401 - whatever the work says
    if not connection.poll(max(0.0, end - monotonic())):
        raise TimeoutError
    try:
        return connection.recv()
    except EOFError as error:
        raise Unavailable(
            "the process that was to start the job ended by itself (killed, or out of memory)"
        ) from error
