"""A lock in a bucket: an object that its owner renews, so that a dead owner's can be taken over."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from policy.errors import OutputInUse
from transforms import bucket

_LOG = logging.getLogger("adalabel")

RENEW_SECONDS = 15.0
DEAD_SECONDS = 60.0
"""A lease that nobody renewed for so long, by our own steady clock, has no owner any more."""


@contextmanager
def leased(path: str, owner: dict[str, str]) -> Iterator[None]:
    """Hold the object of this path while the body runs, as `owner`.

    A lease of a process of this machine that is gone is taken over at once, any other after it was
    watched for DEAD_SECONDS without being renewed. Raises OutputInUse if it is renewed meanwhile,
    or if the lease was lost while the body ran.
    """
    generation = _taken(path, owner)
    stop, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(path, owner, generation, stop, lost), daemon=True
    )
    renewing.start()
    try:
        yield
        if lost.is_set():
            raise OutputInUse(f"{path}: another run took this lease over; run again after its end")
    finally:
        stop.set()
        renewing.join()
        if not lost.is_set():
            bucket.delete(path)


def _content(owner: dict[str, str], renewed: int) -> bytes:
    return json.dumps({**owner, "renewed": renewed}).encode()


def _taken(path: str, owner: dict[str, str]) -> int:
    """Take the lease; returns its generation."""
    watched, since = None, 0.0
    while True:
        found = bucket.read(path)
        if found is None:
            bucket.create(path, _content(owner, 0))
            found = bucket.read(path)
        if found is not None:
            content, generation = found
            if _is_ours(content, owner):
                return generation
            if watched is None:
                watched, since = generation, time.monotonic()
                _LOG.info("%s: is held; watching whether its run is alive", path)
            elif watched != generation:
                raise OutputInUse(f"{path}: held by another run: {content.decode()[:300]}")
            if _is_gone(content) or time.monotonic() - since > DEAD_SECONDS:
                bucket.swap(path, _content(owner, 0), generation)
                continue
        time.sleep(min(RENEW_SECONDS, DEAD_SECONDS) / 10)


def _is_ours(content: bytes, owner: dict[str, str]) -> bool:
    return owner["run"].encode() in content


def _is_gone(content: bytes) -> bool:
    """Whether the owner ran on this machine and does not any more."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        host, pid, _ = json.loads(content)["run"].rsplit(".", 2)
        return host == socket.gethostname() and not alive(int(pid))
    return False


def alive(pid: int) -> bool:
    """Whether a process of this number runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _renew(
    path: str, owner: dict[str, str], generation: int, stop: threading.Event, lost: threading.Event
) -> None:
    renewed = 0
    while not stop.wait(RENEW_SECONDS):
        renewed += 1
        try:
            if not bucket.swap(path, _content(owner, renewed), generation):
                found = bucket.read(path)  # our own write may stand although its response was lost
                if found is None or not _is_ours(found[0], owner):
                    lost.set()
                    return
            found = bucket.read(path)
        except bucket.FAILED as error:
            _LOG.warning("%s: could not be renewed, trying again: %s", path, error)
            continue
        generation = found[1] if found else generation
