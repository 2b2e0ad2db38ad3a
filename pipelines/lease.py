"""A lock in a bucket: an object that its owner renews, so that a dead owner's can be taken over."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from policy.errors import OutputInUse, Unavailable, shown
from transforms import bucket

_LOG = logging.getLogger("adalabel")

RENEW_SECONDS = 15.0
DEAD_SECONDS = 60.0
"""A lease that nobody renewed for so long, by our own steady clock, has no owner any more."""


@contextmanager
def leased(path: str, owner: dict[str, str]) -> Iterator[None]:
    """Hold the object of this path while the body runs, as `owner`.

    A lease of a process of this machine that is gone is taken over at once, any other after it was
    watched for DEAD_SECONDS without being renewed. Raises OutputInUse if it is renewed meanwhile.
    A process that loses its lease, or cannot renew it for so long, ends at once: it must not
    publish over its successor.
    """
    renewal = _Renewal(path, owner, _taken(path, owner))
    renewal.start()
    try:
        yield
    finally:
        renewal.end()
        with suppress(Unavailable):  # what the run did is done; its lease dies by itself
            bucket.delete(path, renewal.generation)


def _content(owner: dict[str, str], renewed: int) -> bytes:
    return json.dumps({**owner, "renewed": renewed}).encode()


def _taken(path: str, owner: dict[str, str]) -> int:
    """Take the lease; returns its generation."""
    watched, since = None, 0.0
    while True:
        found = bucket.read(path)
        ours = bucket.create(path, _content(owner, 0)) if found is None else None
        if ours is not None:
            return ours
        if found is not None:
            content, generation = found
            if watched is None:
                watched, since = generation, time.monotonic()
                _LOG.info("%s: is held; watching whether its run is alive", path)
            elif watched != generation:
                raise in_use(path, content.decode(errors="replace"))
            if _is_gone(content) or time.monotonic() - since > DEAD_SECONDS:
                ours = bucket.swap(path, _content(owner, 0), generation)
                if ours is not None:
                    return ours
        time.sleep(min(RENEW_SECONDS, DEAD_SECONDS) / 10)


def _is_ours(content: bytes, owner: dict[str, str]) -> bool:
    return owner["run"].encode() in content


def _is_gone(content: bytes) -> bool:
    """Whether the owner ran on this machine and does not any more."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        host, pid, _ = json.loads(content)["run"].rsplit(".", 2)
        return host == this_machine() and not alive(int(pid))
    return False


def in_use(root: str, owner: str) -> OutputInUse:
    """The error that names the run which holds an output, by what it wrote of itself."""
    try:
        found: Any = json.loads(owner)
        who = f"run {shown(found['run'])}, since {shown(found['since'])},"
    except (ValueError, TypeError, KeyError):
        who = "another run"
    return OutputInUse(
        f"{root}: {who} writes to this output; wait for its end, stop it, or choose another output"
    )


def this_machine() -> str:
    """The name of this machine, or of this container: where a process's number means something."""
    name = socket.gethostname()
    with suppress(OSError):
        name = f"{name}-{Path('/proc/self/ns/pid').stat().st_ino}"
    return name


def alive(pid: int) -> bool:
    """Whether a process of this number runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Renewal(threading.Thread):
    """Renews a lease until its end; `generation` is that of our last writing.

    A renewal may take as long as a bucket does not answer, so a clock beside it ends the process in
    time: whoever watches the lease counts DEAD_SECONDS from a renewal that was later than ours.
    """

    def __init__(self, path: str, owner: dict[str, str], generation: int) -> None:
        super().__init__(name="renew_lease", daemon=True)
        self.path = path
        self.owner = owner
        self.generation = generation
        self.stop = threading.Event()
        self._clock = self._wound(time.monotonic())

    def run(self) -> None:
        """Renew it every RENEW_SECONDS."""
        renewed = 0
        while not self.stop.wait(RENEW_SECONDS):
            renewed, began = renewed + 1, time.monotonic()
            try:
                still_ours = self._renew(renewed)
            except Unavailable as error:
                _LOG.warning("%s: could not be renewed, trying again: %s", self.path, error)
                continue
            self._clock.cancel()
            if not still_ours:
                self._lost()
                return
            self._clock = self._wound(began)

    def end(self) -> None:
        """Renew it no more."""
        self.stop.set()
        self.join()
        self._clock.cancel()

    def _renew(self, renewed: int) -> bool:
        ours = bucket.swap(self.path, _content(self.owner, renewed), self.generation)
        if ours is None:
            found = bucket.read(self.path)
            if found is None or not _is_ours(found[0], self.owner):
                return False
            ours = found[1]  # of an earlier renewal that seemed to fail
        self.generation = ours
        return True

    def _wound(self, began: float) -> threading.Timer:
        """A clock that goes off when the renewal begun then is too old."""
        left = began + DEAD_SECONDS - time.monotonic()
        clock = threading.Timer(max(0.0, left), self._lost)
        clock.daemon = True
        clock.start()
        return clock

    def _lost(self) -> None:
        leave(f"{self.path}: this run's lease was lost; run again when no other does")


def leave(why: str) -> None:
    """End the process, with all that it is doing."""
    _LOG.error(why)
    os._exit(OutputInUse.exit_code)
