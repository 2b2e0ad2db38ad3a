"""Mini-batches in random order from a stream of rows that need not fit in memory."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Batch = tuple[NDArray[np.int32], NDArray[np.float16]]
"""Labels [n], and features [n, features]."""

Stream = Callable[[np.random.Generator], Iterator[Batch]]
"""Gives all rows once per call, a part at a time; the generator may decide the order."""

BATCH = 512
"""Rows of a mini-batch."""

BUFFER_BYTES = 256 << 20
"""Features held in memory to draw mini-batches from; a stream that fits is read once."""


def joined(batches: Iterable[Batch]) -> Batch:
    """All rows at once, in their order; there must be some."""
    parts = list(batches)
    labels, features = (np.concatenate(column) for column in zip(*parts, strict=True))
    return labels, features


def mini_batches(stream: Stream, n: int, width: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield without end: whole passes in random order over `n` rows of `width` features.

    Where the buffer cannot hold them, each mini-batch is drawn from the rows that it holds at that
    time, so rows that come far apart in the stream hardly meet.
    """
    capacity = max(BUFFER_BYTES // (2 * width), 2 * BATCH)
    if n > capacity:
        yield from _streamed(stream, capacity, width, rng)
    labels, features = joined(stream(rng))
    while True:
        order = rng.permutation(n)
        for start in range(0, n, BATCH):
            rows = order[start : start + BATCH]
            yield labels[rows], features[rows]


def _streamed(
    stream: Stream, capacity: int, width: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Endless: fill a buffer of `capacity` rows, and draw a mini-batch whenever it is full."""
    labels = np.empty(capacity, dtype=np.int32)
    features = np.empty((capacity, width), dtype=np.float16)
    filled = 0
    while True:
        for some, rows in stream(rng):
            for start in range(0, len(some), BATCH):
                part = slice(start, start + BATCH)
                if filled + BATCH > capacity:
                    filled -= BATCH
                    yield _drawn(labels, features, filled, rng)
                end = filled + len(some[part])
                labels[filled:end], features[filled:end] = some[part], rows[part]
                filled = end


def _drawn(
    labels: NDArray[np.int32], features: NDArray[np.float16], left: int, rng: np.random.Generator
) -> Batch:
    """Draw a mini-batch from the first `left` + BATCH rows, and close the gaps it leaves."""
    filled = left + BATCH
    drawn = rng.choice(filled, BATCH, replace=False)
    batch = labels[drawn], features[drawn]
    gaps = drawn[drawn < left]
    others = np.setdiff1d(np.arange(left, filled), drawn)
    labels[gaps], features[gaps] = labels[others], features[others]
    return batch
