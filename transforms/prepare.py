"""Decoding ahead: images are decoded and resized by threads while the network is busy."""

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from policy.errors import Unavailable, shown
from policy.rows import OK
from transforms.decode_limits import BadImage
from transforms.decoding import Decoder, HereDecoder
from transforms.images import InputSpec
from transforms.shards import Record

HERE = HereDecoder()
_HANGS = 4  # times the limit of CPU seconds, for threads that share a core
_SLACK_SECONDS = 60
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A decoded record: where it came from, and its pixels for some inputs.

    `row` is its number in shard `shard`. `image` is kept for the inputs not made yet; `status` and
    `error` are those of the record, or say why it could not be decoded.
    """

    shard: str
    row: int
    key: str
    label: int | None
    label_error: str | None = None
    status: str = OK
    error: str | None = None
    image: NDArray[np.uint8] | None = None
    pixels: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class DecodeAhead:
    """Threads that prepare records in order, at most `depth` of them ahead."""

    def __init__(
        self,
        inputs: Mapping[str, InputSpec],
        pool: Executor,
        depth: int,
        *,
        keep_image: bool = True,
        decoder: Decoder = HERE,
    ) -> None:
        """Make the pixels of these input stages for every image, on `pool`.

        The decoded image itself is kept only where later inputs are made from it.
        """
        self.decoder = decoder
        self.inputs = inputs
        self.keep_image = keep_image
        self.pool = pool
        self.depth = depth
        self._pending: deque[tuple[str, Future[Prepared]]] = deque()

    def submit(self, shard: str, row: int, record: Record) -> Iterator[Prepared]:
        """Take a record; yield the oldest ones while more than `depth` are under way."""
        kept, decoder = self.keep_image, self.decoder
        work = partial(prepare, shard, row, record, self.inputs, keep_image=kept, decoder=decoder)
        self._pending.append((record.key, self.pool.submit(work)))
        while len(self._pending) > self.depth:
            yield self._oldest()

    def drain(self) -> Iterator[Prepared]:
        """Yield all that is still under way."""
        while self._pending:
            yield self._oldest()

    def _oldest(self) -> Prepared:
        """Wait for the oldest record; end the process if its decoder hangs.

        Waited seconds are counted, not read off a clock: a process that was stopped for long and
        goes on has not waited.
        """
        key, future = self._pending.popleft()
        for _ in range(int(_HANGS * self.decoder.limits.seconds) + _SLACK_SECONDS):
            if wait([future], timeout=1).done:
                return future.result()
        _LOG.critical(
            "record %s: its decoder hangs, and a thread cannot be ended; the same command with "
            "--isolate-decode loses only this record",
            shown(key),
        )
        os._exit(Unavailable.exit_code)  # an exception would wait for the thread, forever


def prepare(
    shard: str,
    row: int,
    record: Record,
    inputs: Mapping[str, InputSpec],
    *,
    keep_image: bool = True,
    decoder: Decoder = HERE,
) -> Prepared:
    """Decode one record and make its pixels for these input stages."""
    origin = Prepared(
        shard, row, record.key, record.label, record.label_error, record.status, record.error
    )
    if record.status != OK:
        return origin
    try:
        decoded = decoder(record.image, inputs, keep_image=keep_image)
    except BadImage as error:
        return replace(origin, status=error.status, error=str(error))
    return replace(origin, image=decoded.image, pixels=decoded.pixels)
