"""Decoders and resizes compared: milliseconds of CPU per image.

Run from the root: `ADALABEL_DATA=... python benchmarks/decoding.py`, a few minutes. Prints
Markdown: medians of REPEATS, sides in turn. All sides start from bytes, open the header as
transforms.images does, and end at [side, side, 3].
"""

import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from transforms.images import FORMATS, InputSpec, decode
from transforms.jpeg import eighths_for
from transforms.resize import fit
from transforms.shards import match_shards, read_records

REPEATS = 5
IMAGES = 16
SIDES = (128, 224)
Pixels = NDArray[np.uint8]


def opened(encoded: bytes) -> Image.Image:
    """Its header."""
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


def by_pillow(encoded: bytes, side: int) -> Pixels:
    """What this project did until now; the side it is compared with."""
    image = opened(encoded).convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def by_pillow_scaled(encoded: bytes, side: int) -> Pixels:
    """Its draft mode, at our scale."""
    image = opened(encoded)
    eighths = eighths_for(image.size, side)
    image.draft("RGB", (image.width * eighths // 8, image.height * eighths // 8))
    return resized(np.array(image.convert("RGB")), side)


def by_torchvision(encoded: bytes, side: int) -> Pixels:
    """torchvision.io, which does not scale."""
    opened(encoded).getexif()
    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    decoded = decode_jpeg(data, mode=ImageReadMode.RGB)
    return resized(decoded.permute(1, 2, 0).contiguous().numpy(), side)


def by_simplejpeg(encoded: bytes, side: int) -> Pixels:
    """Full size."""
    opened(encoded).getexif()
    return resized(simplejpeg.decode_jpeg(encoded, "RGB"), side)


def by_simplejpeg_any_scale(encoded: bytes, side: int) -> Pixels:
    """Every M/8, not only those with fast code."""
    opened(encoded).getexif()
    return resized(simplejpeg.decode_jpeg(encoded, "RGB", min_height=side, min_width=side), side)


def ours(encoded: bytes, side: int) -> Pixels:
    """What runs where the networks file asks for nothing else: full size."""
    return resized(decode(encoded), side)


def ours_three_times(encoded: bytes, side: int) -> Pixels:
    """With a decode_side of three times the input; it loses accuracy (docs/images.md)."""
    return resized(decode(encoded, side=3 * side), side)


def ours_scaled(encoded: bytes, side: int) -> Pixels:
    """With the input as decode_side; it loses more."""
    return resized(decode(encoded, side=side), side)


def resized(image: Pixels, side: int) -> Pixels:
    """By torch, as runs."""
    return fit(image, InputSpec(resize=(side, side), mean=(0.5,) * 3, std=(0.5,) * 3))


def resized_by_pillow(image: Pixels, side: int) -> Pixels:
    """From array to array."""
    made = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(made)


DECODERS = {
    "Pillow, resized by Pillow": by_pillow,
    "Pillow, scaled": by_pillow_scaled,
    "torchvision.io": by_torchvision,
    "simplejpeg": by_simplejpeg,
    "simplejpeg, any M/8": by_simplejpeg_any_scale,
    "ours": ours,
    "ours, decode_side 3 x the input": ours_three_times,
    "ours, decode_side the input": ours_scaled,
}
RESIZES = {"resize alone, Pillow": resized_by_pillow, "resize alone, torch": resized}


def made_of(encoded: bytes, width: int, height: int) -> bytes:
    """The same picture as JPEG of this size, 4:2:0, quality 90."""
    buffer = io.BytesIO()
    image = opened(encoded).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=90, subsampling=2)
    return buffer.getvalue()


def row_of(
    name: str, sides: dict[str, Callable[..., Pixels]], images: Sequence[object], side: int
) -> None:
    """Time the sides in turn; print milliseconds, and how many times as fast as the first."""
    found: dict[str, list[float]] = {what: [] for what in sides}
    for _ in range(REPEATS):
        for what, work in sides.items():
            started = time.thread_time()
            for image in images:
                work(image, side)
            found[what].append((time.thread_time() - started) / len(images) * 1e3)
    medians = [statistics.median(times) for times in found.values()]
    cells = [f"{median:.2f} ({medians[0] / median:.2f}x)" for median in medians]
    print(f"| {name} to {side} | " + " | ".join(cells) + " |", flush=True)


def header(sides: dict[str, Callable[..., Pixels]]) -> None:
    """The first two rows of a table."""
    print("\n| ms of CPU per image | " + " | ".join(sides) + " |")
    print("|---|" + "---:|" * len(sides))


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    shards = match_shards([str(Path(os.environ["ADALABEL_DATA"]) / "photos" / "nips17-00000.tar")])
    photos = [record.image for shard in shards for record in read_records(shard)][:IMAGES]
    sources = {"photos, 299 x 299, 4:4:4": photos} | {
        f"{width} x {height}, 4:2:0": [made_of(photo, width, height) for photo in photos]
        for width, height in ((500, 375), (1024, 768), (2048, 1536))
    }
    header(DECODERS)
    for name, images in sources.items():
        for side in SIDES:
            row_of(name, DECODERS, images, side)
    header(RESIZES)
    for name, images in sources.items():
        for side in SIDES:
            row_of(name, RESIZES, [decode(image) for image in images], side)


if __name__ == "__main__":
    main()
