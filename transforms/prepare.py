"""From a record to what a network sees of it, or the reason why it sees nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from policy.rows import OK
from transforms.decode_limits import BadImage
from transforms.decoding import Decoded, Decoder, HereDecoder, fitted
from transforms.images import InputSpec
from transforms.shards import Record

HERE = HereDecoder()
NONE: Mapping[str, InputSpec] = MappingProxyType({})

MOST_KEPT_BYTES = 4 << 20
"""A larger decoded image is not kept for the inputs that may be made of it later: they are made at
once, which takes some percent of what decoding it took (benchmarks/RESULTS.md). So many images wait
at a time that camera pictures would fit no memory."""


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


def prepare(
    shard: str,
    row: int,
    record: Record,
    inputs: Mapping[str, InputSpec],
    *,
    later: Mapping[str, InputSpec] = NONE,
    decoder: Decoder = HERE,
) -> Prepared:
    """Decode one record and make its pixels for these input stages.

    For those of `later` the image is kept or, where it is a large one, they are made too.
    """
    origin = Prepared(
        shard, row, record.key, record.label, record.label_error, record.status, record.error
    )
    if record.status != OK:
        return origin
    try:
        decoded = decoder(record.image, inputs, keep_image=bool(later))
        if decoded.image is not None and decoded.image.nbytes > MOST_KEPT_BYTES:
            made = fitted(decoded.image, later, keep_image=False)
            decoded = Decoded({**decoded.pixels, **made.pixels})
    except BadImage as error:
        return replace(origin, status=error.status, error=str(error))
    return replace(origin, image=decoded.image, pixels=decoded.pixels)
