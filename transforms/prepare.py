"""Decoding ahead: images are decoded and resized by threads while the network is busy."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from policy.rows import OK
from transforms.images import BadImage, InputSpec, decode, fit
from transforms.shards import Record


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
    image: Image.Image | None = None
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
    ) -> None:
        """Make the pixels of these input stages for every image, on `pool`.

        The decoded image itself is kept only where later inputs are made from it.
        """
        self.inputs = inputs
        self.keep_image = keep_image
        self.pool = pool
        self.depth = depth
        self._pending: deque[Future[Prepared]] = deque()

    def submit(self, shard: str, row: int, record: Record) -> Iterator[Prepared]:
        """Take a record; yield the oldest ones while more than `depth` are under way."""
        work = partial(prepare, shard, row, record, self.inputs, keep_image=self.keep_image)
        self._pending.append(self.pool.submit(work))
        while len(self._pending) > self.depth:
            yield self._pending.popleft().result()

    def drain(self) -> Iterator[Prepared]:
        """Yield all that is still under way."""
        while self._pending:
            yield self._pending.popleft().result()


def prepare(
    shard: str,
    row: int,
    record: Record,
    inputs: Mapping[str, InputSpec],
    *,
    keep_image: bool = True,
) -> Prepared:
    """Decode one record and make its pixels for these input stages."""
    origin = Prepared(
        shard, row, record.key, record.label, record.label_error, record.status, record.error
    )
    if record.status != OK:
        return origin
    try:
        image = decode(record.image)
        pixels = {stage: fit(image, spec) for stage, spec in inputs.items()}
    except BadImage as error:
        return replace(origin, status=error.status, error=str(error))
    return replace(origin, image=image if keep_image else None, pixels=pixels)
