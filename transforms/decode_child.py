"""The process that decodes for a worker: `python -m transforms.decode_child FD SETTINGS`.

It imports neither torch nor Beam, and what a hostile image does to it is done to it alone.
"""

import json
import resource
import signal
import socket
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from transforms.decode_limits import BadImage, DecodeLimits
from transforms.frames import Gone, receive, send
from transforms.images import decode

Decoding = Callable[[bytes, DecodeLimits, int | None], NDArray[np.uint8]]

_BYTES_PER_PIXEL = 24
"""The most that Pillow, a turn and a conversion hold at once for a pixel."""
_ADDRESSES = 1 << 30
"""Bytes of addresses that Python, NumPy and Pillow take before the first image."""
_OVERDUE = 2
"""Times the limit after which a child ends itself, if its worker is no longer there to do it."""


def memory_limit(limits: DecodeLimits) -> int:
    """Bytes of addresses a child may take."""
    return _ADDRESSES + _BYTES_PER_PIXEL * limits.max_pixels + 4 * limits.max_image_bytes


def serve(peer: socket.socket, decoding: Decoding, limits: DecodeLimits, side: int | None) -> None:
    """Answer until the worker goes away."""
    send(peer, {"ready": True})
    while True:
        try:
            _, parts = receive(peer, limits.max_image_bytes + (1 << 20))
            signal.setitimer(signal.ITIMER_REAL, _OVERDUE * limits.seconds)
            try:
                image = decoding(bytes(parts[0]), limits, side)
            except BadImage as error:
                send(peer, {"status": error.status, "error": str(error)})
            else:
                send(peer, {"shape": image.shape}, [image.reshape(-1).data])
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Gone:
            return


def run_child(decoding: Decoding, arguments: list[str]) -> None:
    """Limit this process, then serve on the socket it was started with."""
    descriptor, given = arguments
    settings = json.loads(given)
    limits = DecodeLimits(**settings["limits"])
    most = memory_limit(limits)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer
    with socket.socket(fileno=int(descriptor)) as peer:
        serve(peer, decoding, limits, settings["side"])


if __name__ == "__main__":
    run_child(decode, sys.argv[1:])
