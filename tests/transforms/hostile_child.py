"""Stands in for transforms.decode_child: the bytes of an image say what its decoder does."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial

import numpy as np

from transforms.decode_child import run_child
from transforms.decode_limits import BadImage
from transforms.decoding import Decoded, HereDecoder
from transforms.images import InputSpec


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


class HostileDecoder(HereDecoder):
    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        if encoded == b"nonsense":
            nothing = np.zeros(0, dtype=np.uint8)
            return Decoded(dict.fromkeys(("one", "too", "many"), nothing))
        if encoded == b"other pixels":
            return Decoded(dict.fromkeys(inputs, np.zeros(5, dtype=np.uint8)))
        if encoded in DOES:
            DOES[encoded]()
        return super().__call__(encoded, inputs, keep_image=keep_image)


if __name__ == "__main__":
    run_child(HostileDecoder, sys.argv[1:])
