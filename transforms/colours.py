"""One conversion to upright 8-bit RGB for each way in which files store pixels: docs/images.md."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_SIXTEEN_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_Pixels = NDArray[np.uint8]
_UPRIGHT: dict[int, Callable[[_Pixels], _Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels[:, ::-1].transpose(1, 0, 2),
}
"""What each EXIF orientation needs (EXIF 2.3, tag 0x0112)."""


def upright(image: Image.Image, pixels: _Pixels) -> _Pixels:
    """Turn an image's pixels by EXIF, or XMP where EXIF is silent; malformed ones turn nothing."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow parses EXIF only now, and raises all kinds
        turn = None
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def rgb(image: Image.Image) -> _Pixels:
    """Decode an opened image [height, width, 3]; raises what Pillow raises."""
    image.load()
    return np.array(_rgb(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:  # the high byte, as Pillow itself reads 16-bit colours
        wide = np.asarray(image)
        grey = (np.clip(wide, 0, 0xFFFF) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        unit = np.nan_to_num(np.asarray(image), nan=0.0)
        return Image.fromarray(np.rint(unit.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns of the transparency it loses
    return image.convert("RGB")
