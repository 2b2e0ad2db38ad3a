"""From encoded bytes to all that is asked of an image, here in this thread."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transforms.decode_limits import DEFAULT_LIMITS, BadImage, DecodeLimits
from transforms.doing import DECODE, RESIZE, doing
from transforms.images import InputSpec, decode
from transforms.resize import fit


@dataclass(frozen=True)
class Decoded:
    """The pixels of some inputs, and of the image where it was asked for: [height, width, RGB]."""

    pixels: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = None


class Decoder(Protocol):
    """Decodes in threads of a pool, several at a time."""

    @property
    def limits(self) -> DecodeLimits:
        """What an image may cost."""

    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        """Decode once and fit for each input. Raises BadImage."""

    def close(self) -> None:
        """End what was started."""


@dataclass(frozen=True)
class HereDecoder:
    """Decodes in the calling thread: a crash ends the process, and a hang cannot be ended.

    `side`: pixels that the shorter side of a JPEG is decoded to at least; None: full size.
    """

    limits: DecodeLimits = DEFAULT_LIMITS
    side: int | None = None

    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        """Decode, then look at the clock (of this thread's CPU, so that load decides nothing)."""
        started = time.thread_time()
        with doing(DECODE):
            image = decode(encoded, self.limits, self.side)
        decoded = fitted(image, inputs, keep_image=keep_image)
        self.limits.check_time(time.thread_time() - started)
        return decoded

    def close(self) -> None:
        """Nothing was started."""


def fitted(
    image: NDArray[np.uint8], inputs: Mapping[str, InputSpec], *, keep_image: bool
) -> Decoded:
    """Fit a decoded image for each input. Raises BadImage "memory"."""
    try:
        with doing(RESIZE):
            pixels = {stage: fit(image, spec) for stage, spec in inputs.items()}
    except (MemoryError, RuntimeError) as error:  # the latter is torch's; nothing else can fail
        raise BadImage("memory", "not enough memory to resize the image") from error
    return Decoded(pixels, image if keep_image else None)
