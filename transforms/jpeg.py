"""JPEGs decoded fast, and no larger than is asked for: by simplejpeg, at M/8 of their size.

libjpeg makes an image of M/8 of its size from M x M of each block's 8 x 8 frequencies. It has fast
code for M = 1, 2, 4 and 8; the others gain nothing over the next of these (measured by
benchmarks/decoding.py), and Pillow, which the tests compare with, has only these.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

_EIGHTHS = (1, 2, 4)
_FORMATS = ("JPEG", "MPO")  # MPO: what Pillow calls a JPEG that more images follow
_MODES = ("L", "RGB")  # as Pillow sees them; its own conversion of CMYK and YCCK is ours
_SMALLEST = 8
"""Pixels of a side below which M cannot be told from M - 1 by the size that is asked for."""


def eighths_for(size: tuple[int, int], side: int | None) -> int:
    """The smallest M for which the shorter side has `side` pixels; 8, if none has or for None."""
    shorter = min(size)
    if side is None or shorter < _SMALLEST:
        return 8
    return next((m for m in _EIGHTHS if _scaled(shorter, m) >= side), 8)


def _scaled(length: int, eighths: int) -> int:
    return -(-length * eighths // 8)  # rounded up, as libjpeg does


def decode_fast(encoded: bytes, opened: Image.Image, side: int | None) -> NDArray[np.uint8] | None:
    """RGB [height, width, 3] of a JPEG, not turned; None where Pillow is to decide.

    `opened` are the same bytes opened by Pillow. What libjpeg so much as warns of is Pillow's too,
    so that nothing is accepted or refused here that Pillow would not accept or refuse.
    """
    if opened.format not in _FORMATS or opened.mode not in _MODES:
        return None
    eighths = eighths_for(opened.size, side)
    width, height = (_scaled(length, eighths) for length in opened.size)
    least = {} if eighths == 8 else {"min_height": height, "min_width": width}  # noqa: PLR2004
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, "RGB", **least)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None
