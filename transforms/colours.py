"""One conversion to upright 8-bit RGB for each way in which files store pixels: docs/images.md."""

import numpy as np
from PIL import ExifTags, Image

_SIXTEEN_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image; raises what Pillow raises where it knows no conversion."""
    turn = _turn(image)
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn by EXIF, or XMP where EXIF is silent; malformed metadata turn nothing."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow parses EXIF only now, and raises all kinds
        return None


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
