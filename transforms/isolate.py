"""Decoding in processes of their own: a decoder that crashes or hangs costs one record.

multiprocessing, and what is built on it (pebble, loky), starts children that import the parent's
`__main__`, here torch and Beam, or breaks the whole pool with one child, and unpickles what a
child sends. So a child is a plain command, and speaks JSON and bytes over a socket.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.errors import Unavailable, shown
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.decoding import Decoded, fitted
from transforms.doing import DECODE, doing
from transforms.frames import Gone, receive, send
from transforms.images import InputSpec

COMMAND = (sys.executable, "-P", "-m", "transforms.decode_child")
_START_SECONDS = 60
_DYING_SECONDS = 5  # for writing why, on a machine that is busy
_ROOT = str(Path(__file__).parents[1])


class _Child:
    """One process and the socket to it."""

    def __init__(self, command: Sequence[str], limits: DecodeLimits, side: int | None) -> None:
        settings = json.dumps({"limits": asdict(limits), "side": side})
        self.peer, theirs = socket.socketpair()
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            # what is run: our own module, by this interpreter, with numbers as arguments
            self.process = subprocess.Popen(  # noqa: S603
                [*command, str(theirs.fileno()), settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        try:
            receive(self.peer, 1 << 10, time.monotonic() + _START_SECONDS)
        except (Gone, TimeoutError) as error:
            raise Unavailable(
                f"the process that decodes images did not start ({self.end()}); see what it wrote "
                "above, or run without --isolate-decode"
            ) from error

    def end(self, patience: float = 0.2) -> str:
        """End the process if it still runs after so many seconds; say how it ended."""
        self.peer.close()
        try:
            code = self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class IsolatedDecoder:
    """As many children as threads ask at once; one that is lost is replaced for the next image."""

    def __init__(
        self, limits: DecodeLimits, side: int | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        """Children run `command` and keep `limits`; they are started when first needed.

        `side`: pixels that the shorter side of a JPEG is decoded to at least; None: full size.
        """
        self.limits = limits
        self.side = side
        self.command = command
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()

    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        """Decode in a child, resize here. Raises BadImage, "crashed" or "timeout" if it is lost."""
        self.limits.check_bytes(encoded)
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = _Child(self.command, self.limits, self.side)
        try:
            with doing(DECODE):
                image = self._ask(child, encoded)
        except TimeoutError as error:
            child.end()
            message = f"decoding did not end in {self.limits.seconds:g} s (--decode-seconds)"
            raise BadImage("timeout", message) from error
        except Gone as error:
            how = child.end(_DYING_SECONDS)
            raise BadImage("crashed", f"the decoder crashed: {how}") from error
        except BadImage:
            self._idle.put(child)
            raise
        self._idle.put(child)
        return fitted(image, inputs, keep_image=keep_image)

    def close(self) -> None:
        """End the children."""
        while not self._idle.empty():
            self._idle.get_nowait().end()

    def _ask(self, child: _Child, encoded: bytes) -> NDArray[np.uint8]:
        deadline = time.monotonic() + self.limits.seconds
        child.peer.settimeout(self.limits.seconds)
        send(child.peer, {}, [encoded])
        about, parts = receive(child.peer, 3 * self.limits.max_pixels + (1 << 20), deadline)
        if "status" in about:
            raise BadImage(shown(about["status"]), shown(about["error"]))
        return _unpacked(about, parts)


def _unpacked(about: dict[str, Any], parts: list[bytearray]) -> NDArray[np.uint8]:
    """What a child sent; Gone where it is no image, as nothing it says is trusted."""
    try:
        (part,), (height, width, channels) = parts, about["shape"]
        if min(height, width) < 1 or channels != 3:  # noqa: PLR2004 - RGB
            raise Gone("an answer that is no image")
        return np.frombuffer(part, dtype=np.uint8).reshape(height, width, channels)
    except (ValueError, TypeError, KeyError) as error:
        raise Gone("an answer that was not asked for") from error
