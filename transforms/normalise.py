"""From the pixels of a batch to what a network takes: [0, 1], less the mean, by the deviation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from transforms.images import InputSpec


class Normaliser:
    """Makes batches of one input, on one device."""

    def __init__(self, spec: InputSpec, device: torch.device) -> None:
        """Repeat mean and deviation for a row of pixels: three numbers at a time are slow."""
        width = spec.size[1]
        self.device = device
        self._mean, self._std = (
            (torch.tensor(values) * 255).repeat(width).to(device)
            for values in (spec.mean, spec.std)
        )

    def __call__(self, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """[n, 3, height, width] (channels last) of images [height, width, 3]."""
        batch = torch.from_numpy(np.stack(pixels))
        if self.device.type == "cuda":  # from pinned memory the copy waits for nothing
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        n, height, width, colours = batch.shape
        rows = batch.view(n, height, width * colours).to(torch.float32)
        rows = rows.sub_(self._mean).div_(self._std)
        return rows.view(n, height, width, colours).permute(0, 3, 1, 2)
