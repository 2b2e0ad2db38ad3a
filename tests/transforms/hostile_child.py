"""Stands in for transforms.decode_child: the bytes of an image say what its decoder does."""

import os
import signal
import sys
import time
from functools import partial

import numpy as np
from numpy.typing import NDArray

from transforms.decode_child import run_child
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.images import decode


def sends(number: int) -> None:
    os.kill(os.getpid(), number)


def hangs() -> None:
    time.sleep(600)


def ends() -> None:
    raise SystemExit(7)


def recurses() -> None:
    recurses()


def fills_memory() -> None:
    try:
        bytearray(1 << 40)
    except MemoryError:
        raise BadImage("memory", "the limit holds") from None


DOES = {
    b"segfault": partial(sends, signal.SIGSEGV),
    b"abort": os.abort,
    b"out of memory": partial(sends, signal.SIGKILL),
    b"stop": partial(sends, signal.SIGSTOP),
    b"hang": hangs,
    b"exit": ends,
    b"recurse": recurses,
    b"fill memory": fills_memory,
}


ANSWERS = {
    b"nothing": np.zeros((0, 3, 3), dtype=np.uint8),
    b"one number": np.zeros(5, dtype=np.uint8),
    b"grey": np.zeros((2, 2, 1), dtype=np.uint8),
}


def hostile(encoded: bytes, limits: DecodeLimits, side: int | None) -> NDArray[np.uint8]:
    if encoded in ANSWERS:
        return ANSWERS[encoded]
    if encoded in DOES:
        DOES[encoded]()
    return decode(encoded, limits, side)


if __name__ == "__main__":
    run_child(hostile, sys.argv[1:])
