import socket
import struct
import time
from collections.abc import Iterator

import pytest

from transforms.frames import Gone, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def raw(*parts: bytes) -> bytes:
    lengths = b"".join(struct.pack("<Q", len(part)) for part in parts)
    return struct.pack("<I", len(parts)) + lengths + b"".join(parts)


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    send(pair[0], {"size": [3, 2]}, [b"", b"\0pixels"])
    assert receive(pair[1], 100) == ({"size": [3, 2]}, [b"", b"\0pixels"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw(), "a message of 0 parts"),
        (struct.pack("<I", 1 << 31), "a message of 2147483648 parts"),
        (struct.pack("<IQ", 1, 1 << 60), "a message of 1152921504606846976 bytes"),
        (raw(b"{"), "no JSON"),
        (raw(b"[" * 90_000), "no JSON"),
        (raw(b"[1]"), "no JSON object"),
        (raw(b"{}")[:-1], "the connection is closed"),
    ],
)
def test_what_is_no_message_is_the_end_of_the_other_side(
    pair: Pair, content: bytes, message: str
) -> None:
    pair[0].sendall(content)
    pair[0].close()
    with pytest.raises(Gone, match=message):
        receive(pair[1], 100_000)


def test_nothing_can_be_sent_to_who_is_gone(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(Gone, match="the connection is closed"):
        send(pair[0], {})


def test_waiting_ends_at_the_deadline(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        receive(pair[1], 100, time.monotonic() + 0.01)
