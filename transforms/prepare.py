"""From a record to what a network sees of it, or the reason why it sees nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from policy.rows import OK
from transforms.decode_limits import BadImage
from transforms.decoding import Decoder, HereDecoder
from transforms.images import InputSpec
from transforms.shards import Record

HERE = HereDecoder()


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
