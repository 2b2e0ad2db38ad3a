"""Messages between a worker and a process that decodes for it: JSON and bytes, never a pickle.

A message is the lengths of its parts, then the parts; the first part is JSON.
"""

import json
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

_PARTS = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_MAX_PARTS = 1000


class Gone(Exception):  # noqa: N818 - not an error here: it is how the other side ends
    """The other side has closed the connection, or breaks the protocol."""


def send(
    peer: socket.socket, about: dict[str, Any], parts: Sequence[bytes | memoryview] = ()
) -> None:
    """Send one message. Raises Gone, and TimeoutError after the socket's own timeout."""
    head = json.dumps(about).encode()
    lengths = [_LENGTH.pack(len(part)) for part in (head, *parts)]
    try:
        peer.sendall(b"".join([_PARTS.pack(len(lengths)), *lengths, head]))
        for part in parts:
            peer.sendall(part)
    except ConnectionError as error:
        raise Gone("the connection is closed") from error


def receive(
    peer: socket.socket, most_bytes: int, deadline: float | None = None
) -> tuple[dict[str, Any], list[bytearray]]:
    """Receive one message; `deadline` is of time.monotonic. Raises Gone and TimeoutError."""
    (count,) = _PARTS.unpack(_exactly(peer, _PARTS.size, deadline))
    if not 1 <= count <= _MAX_PARTS:
        raise Gone(f"a message of {count} parts")
    packed = _exactly(peer, count * _LENGTH.size, deadline)
    lengths = [length for (length,) in _LENGTH.iter_unpack(packed)]
    if sum(lengths) > most_bytes:
        raise Gone(f"a message of {sum(lengths)} bytes")
    head, *parts = [_exactly(peer, length, deadline) for length in lengths]
    try:
        about = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Gone("a message that is no JSON") from error
    if not isinstance(about, dict):
        raise Gone("a message that is no JSON object")
    return about, parts


def _exactly(peer: socket.socket, size: int, deadline: float | None) -> bytearray:
    content = bytearray(size)
    view, got = memoryview(content), 0
    while got < size:
        if deadline is not None:
            peer.settimeout(max(deadline - time.monotonic(), 1e-6))
        try:
            read = peer.recv_into(view[got:])
        except ConnectionError as error:
            raise Gone("the connection is closed") from error
        if not read:
            raise Gone("the connection is closed")
        got += read
    return content
