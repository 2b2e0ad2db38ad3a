"""What a network wants to see, and from encoded bytes to upright RGB."""

import io
import warnings
from importlib.metadata import version
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError, features
from pydantic.dataclasses import dataclass

from policy.errors import InputError, shown
from policy.schema import STRICT
from transforms.colours import rgb, upright
from transforms.decode_limits import DEFAULT_LIMITS, BadImage, DecodeLimits
from transforms.jpeg import decode_fast

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""By content, never by name; each is read by its own library inside Pillow, EPS by none."""

_CONVERSIONS = 2  # counts the changes of what colours.py makes of the same decoded pixels
_LIBRARIES = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "libtiff")}
DECODER = (
    f"simplejpeg {version('simplejpeg')}, pillow {PIL.__version__} {_LIBRARIES} "
    f"conversions {_CONVERSIONS}, resized by torch {version('torch').partition('+')[0]}"
)
"""What decides the pixels besides the bytes, and so the labels: part of a run's fingerprint."""

# All that Pillow keeps in globals, set here and nowhere else:
Image.MAX_IMAGE_PIXELS = None  # it would warn below our limit; DecodeLimits refuses instead
ImageFile.LOAD_TRUNCATED_IMAGES = False  # what is missing would be grey
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 20  # bytes of one inflated text or profile of a PNG
PngImagePlugin.MAX_TEXT_MEMORY = 16 << 20  # and of all texts together
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it only warns of decides nothing


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


def decode(
    encoded: bytes, limits: DecodeLimits = DEFAULT_LIMITS, side: int | None = None
) -> NDArray[np.uint8]:
    """Decode the first frame of an image to upright RGB [height, width, 3] by its content.

    A JPEG is decoded smaller, as long as its shorter side keeps `side` pixels; None: full size
    (docs/images.md). Raises BadImage with status "empty", "too_large", "memory" or "decode". Limits
    are checked by the header; that of time is left to the caller.
    """
    limits.check_bytes(encoded)
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            limits.check_size(*image.size)
            pixels = decode_fast(encoded, image, side)
            return upright(image, rgb(image) if pixels is None else pixels)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("memory", "not enough memory to decode the image") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise BadImage("decode", f"not an image of a known format ({known})") from error
    except Exception as error:  # Pillow raises some twenty kinds on broken files
        raise BadImage("decode", shown(f"{type(error).__name__}: {error}")) from error
