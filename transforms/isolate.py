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
from PIL import Image

from policy.errors import Unavailable, shown
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.decoding import Decoded
from transforms.frames import Gone, receive, send
from transforms.images import InputSpec

COMMAND = (sys.executable, "-P", "-m", "transforms.decode_child")
_START_SECONDS = 60
_ROOT = str(Path(__file__).parents[1])


class _Child:
    """One process and the socket to it."""

    def __init__(self, command: Sequence[str], limits: DecodeLimits) -> None:
        self.peer, theirs = socket.socketpair()
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            # what is run: our own module, by this interpreter, with numbers as arguments
            self.process = subprocess.Popen(  # noqa: S603
                [*command, str(theirs.fileno()), json.dumps(asdict(limits))],
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

    def end(self) -> str:
        """End the process if it still runs; say how it ended."""
        self.peer.close()
        try:
            code = self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class IsolatedDecoder:
    """As many children as threads ask at once; one that is lost is replaced for the next image."""

    def __init__(self, limits: DecodeLimits, command: Sequence[str] = COMMAND) -> None:
        """Children run `command` and keep `limits`; they are started when first needed."""
        self.limits = limits
        self.command = command
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()

    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        """Decode in a child. Raises BadImage, with status "crashed" or "timeout" if it is lost."""
        self.limits.check_bytes(encoded)
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = _Child(self.command, self.limits)
        try:
            decoded = self._ask(child, encoded, inputs, keep_image=keep_image)
        except TimeoutError as error:
            child.end()
            message = f"decoding did not end in {self.limits.seconds:g} s (--decode-seconds)"
            raise BadImage("timeout", message) from error
        except Gone as error:
            raise BadImage("crashed", f"the decoder crashed: {child.end()}") from error
        except BadImage:
            self._idle.put(child)
            raise
        self._idle.put(child)
        return decoded

    def close(self) -> None:
        """End the children."""
        while not self._idle.empty():
            self._idle.get_nowait().end()

    def _ask(
        self,
        child: _Child,
        encoded: bytes,
        inputs: Mapping[str, InputSpec],
        *,
        keep_image: bool,
    ) -> Decoded:
        deadline = time.monotonic() + self.limits.seconds
        given = {stage: asdict(spec) for stage, spec in inputs.items()}
        child.peer.settimeout(self.limits.seconds)
        send(child.peer, {"inputs": given, "keep_image": keep_image}, [encoded])
        shapes = [(*spec.size, 3) for spec in inputs.values()]
        image_bytes = 3 * self.limits.max_pixels if keep_image else 0
        most = sum(int(np.prod(shape)) for shape in shapes) + image_bytes + (1 << 20)
        about, parts = receive(child.peer, most, deadline)
        if "status" in about:
            raise BadImage(shown(about["status"]), shown(about["error"]))
        return _unpacked(about, parts, dict(zip(inputs, shapes, strict=True)), keep_image)


def _unpacked(
    about: dict[str, Any],
    parts: list[bytearray],
    shapes: Mapping[str, tuple[int, ...]],
    keep_image: bool,  # noqa: FBT001 - a part more
) -> Decoded:
    """What a child sent; Gone where it is not what was asked, as nothing it says is trusted."""
    try:
        pixels = {
            stage: np.frombuffer(part, dtype=np.uint8).reshape(shape)
            for (stage, shape), part in zip(
                shapes.items(), parts[:-1] if keep_image else parts, strict=True
            )
        }
        if not keep_image:
            return Decoded(pixels)
        width, height = about["size"]
        return Decoded(pixels, Image.frombytes("RGB", (width, height), parts[-1]))
    except (ValueError, TypeError, KeyError) as error:
        raise Gone("an answer that was not asked for") from error
