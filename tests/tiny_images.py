"""Images that tiny networks tell apart, and how a shard holds them."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def members(images: Sequence[bytes], labels: Sequence[int | None]) -> list[tuple[str, bytes]]:
    """WebDataset members 0000, 0001, ...; an image whose label is None has none."""
    found = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label is not None:
            found.append((f"{number:04d}.cls", str(label).encode()))
        found.append((f"{number:04d}.png", image))
    return found


def tinted(rng: np.random.Generator) -> bytes:
    """A noisy image of one random colour, so that networks tell images apart."""
    pixels = rng.integers(0, 256, (1, 1, 3)) * rng.uniform(0.6, 1, (20, 24, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
