"""From encoded bytes to the pixels a network wants: decode once, then one resize for each input."""

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.schema import STRICT

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
MAX_RATIO = 200  # a resize by the shorter side would make the longer one huge
Image.MAX_IMAGE_PIXELS = None  # Pillow would warn below our limit; `_check_size` refuses instead

_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIXTEEN_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}


class BadImage(ValueError):  # noqa: N818 - what it is, not that it is an error, is what matters
    """An image that cannot be used: `status` is the reason, the message says more."""

    def __init__(self, status: str, message: str) -> None:
        """Give the reason (a row's status) and the explanation (its error)."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, config=STRICT)
class InputSpec:
    """How a network wants its images: [height, width, RGB], scaled to [0, 1], then normalised.

    `resize` is the exact [height, width], or the length of the shorter side; `crop` then cuts a
    square of this side from the centre. Interpolation is antialiased.
    """

    resize: tuple[int, int] | int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        """Refuse inputs of no or unknown size."""
        sides = (self.resize,) if isinstance(self.resize, int) else self.resize
        crop = sides[0] if self.crop is None else self.crop
        if min(*sides, crop) < 1 or min(self.std) <= 0:
            raise InputError("resize, crop and std must be positive")
        if isinstance(self.resize, int) and self.crop is None:
            raise InputError(
                f"resize = {self.resize} keeps the shape, so batches need crop = SIDE too; or give "
                f"an exact size, resize = [{self.resize}, {self.resize}]"
            )
        if crop > min(sides):
            raise InputError(f"crop = {crop} is larger than resize = {self.resize}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        if self.crop is not None:
            return (self.crop, self.crop)
        return (self.resize, self.resize) if isinstance(self.resize, int) else self.resize


def decode(encoded: bytes) -> Image.Image:
    """Decode an image to RGB by its content.

    EXIF orientation is applied; 16-bit grey is scaled to 8 bits; grey, palette and CMYK are
    converted; alpha is dropped. Raises BadImage with status "empty", "too_large" or "decode".
    """
    if not encoded:
        raise BadImage("empty", "the image has no bytes")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            _check_size(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise BadImage("decode", f"not an image of a known format ({known})") from error
    except Exception as error:  # Pillow raises some twenty kinds on broken files
        raise BadImage("decode", f"{type(error).__name__}: {error}") from error


def _check_size(image: Image.Image) -> None:
    """Refuse by the header, before any pixel is decoded."""
    if max(image.size) > MAX_RATIO * min(image.size):
        message = f"{image.width} x {image.height} pixels; sides may differ {MAX_RATIO}-fold"
        raise BadImage("too_large", message)
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("too_large", f"{image.width} x {image.height} pixels; at most {MAX_PIXELS}")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        wide = np.asarray(image, dtype=np.int64).clip(0, 65535)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def fit(image: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """Resize and crop to [height, width, 3]."""
    if isinstance(spec.resize, int):
        short = min(image.size)
        width, height = (int(spec.resize * side / short) for side in image.size)
    else:
        height, width = spec.resize
    if (width, height) != image.size:
        image = image.resize((width, height), _INTERPOLATION[spec.interpolation])
    if spec.crop is not None:
        left = round((width - spec.crop) / 2)
        top = round((height - spec.crop) / 2)
        image = image.crop((left, top, left + spec.crop, top + spec.crop))
    return np.asarray(image)
