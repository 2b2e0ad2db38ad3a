"""From decoded pixels to those a network wants: one resize and one crop for each input.

By torch, whose antialiased resize of 8-bit pixels takes a quarter of Pillow's time or less
(benchmarks/decoding.py) and differs from it by rounding: by 1 in one of a hundred values or fewer.
"""

import numpy as np
from numpy.typing import NDArray

from transforms.images import InputSpec


def fit(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize and crop [height, width, 3] to [*spec.size, 3].

    One image in the calling thread: torch starts no threads for it. Raises RuntimeError where torch
    gets no memory.
    """
    found = image.shape[:2]
    if isinstance(spec.resize, int):
        height, width = (int(spec.resize * side / min(found)) for side in found)
    else:
        height, width = spec.resize
    if (height, width) != found:
        image = _resized(image, (height, width), spec.interpolation)
    if spec.crop is not None:
        top = round((height - spec.crop) / 2)
        left = round((width - spec.crop) / 2)
        # a copy: what is cut off would be kept in memory
        image = image[top : top + spec.crop, left : left + spec.crop].copy()
    return np.ascontiguousarray(image)


def _resized(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    import torch  # noqa: PLC0415 - who only looks for what is missing here does without

    # strides of a batch of one in channels-last, which torch has its fast code for
    batch = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, size=size, mode=interpolation, antialias=True)
    made: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return made
