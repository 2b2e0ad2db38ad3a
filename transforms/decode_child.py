"""The process that decodes for a worker: `python -m transforms.decode_child FD LIMITS`.

It imports neither torch nor Beam, and what a hostile image does to it is done to it alone.
"""

import json
import resource
import signal
import socket
import sys
from typing import Any

from transforms.decode_limits import BadImage, DecodeLimits
from transforms.decoding import Decoded, Decoder, HereDecoder
from transforms.frames import Gone, receive, send
from transforms.images import InputSpec

_BYTES_PER_PIXEL = 24
"""The most that Pillow, a turn and a conversion hold at once for a pixel."""
_ADDRESSES = 1 << 30
"""Bytes of addresses that Python, NumPy and Pillow take before the first image."""
_OVERDUE = 2
"""Times the limit after which a child ends itself, if its worker is no longer there to do it."""


def memory_limit(limits: DecodeLimits) -> int:
    """Bytes of addresses a child may take."""
    return _ADDRESSES + _BYTES_PER_PIXEL * limits.max_pixels + 4 * limits.max_image_bytes


def serve(peer: socket.socket, decoder: Decoder) -> None:
    """Answer until the worker goes away."""
    send(peer, {"ready": True})
    while True:
        try:
            about, parts = receive(peer, decoder.limits.max_image_bytes + (1 << 20))
            signal.setitimer(signal.ITIMER_REAL, _OVERDUE * decoder.limits.seconds)
            send(peer, *_answer(decoder, about, bytes(parts[0])))
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Gone:
            return


def _answer(
    decoder: Decoder, about: dict[str, Any], encoded: bytes
) -> tuple[dict[str, Any], list[memoryview]]:
    inputs = {stage: _spec(given) for stage, given in about["inputs"].items()}
    try:
        decoded = decoder(encoded, inputs, keep_image=about["keep_image"])
    except BadImage as error:
        return {"status": error.status, "error": str(error)}, []
    return _packed(decoded)


def _packed(decoded: Decoded) -> tuple[dict[str, Any], list[memoryview]]:
    parts = [memoryview(pixels.tobytes()) for pixels in decoded.pixels.values()]
    if decoded.image is None:
        return {}, parts
    return {"size": decoded.image.size}, [*parts, memoryview(decoded.image.tobytes())]


def _spec(given: dict[str, Any]) -> InputSpec:
    tuples: dict[str, Any] = {
        name: tuple(found) if isinstance(found, list) else found for name, found in given.items()
    }
    return InputSpec(**tuples)


def run_child(make: type[HereDecoder], arguments: list[str]) -> None:
    """Limit this process, then serve on the socket it was started with."""
    descriptor, given = arguments
    limits = DecodeLimits(**json.loads(given))
    most = memory_limit(limits)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer
    with socket.socket(fileno=int(descriptor)) as peer:
        serve(peer, make(limits))


if __name__ == "__main__":
    run_child(HereDecoder, sys.argv[1:])
