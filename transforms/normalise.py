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
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._mean, self._std = (
            (torch.tensor(values) * 255).repeat(width).to(device)
            for values in (spec.mean, spec.std)
        )

    def __call__(self, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """[n, 3, height, width] (channels last) of images [height, width, 3]."""
        batch = self._moved(torch.from_numpy(np.stack(pixels)))
        n, height, width, colours = batch.shape
        rows = batch.view(n, height, width * colours).to(torch.float32)
        rows = rows.sub_(self._mean).div_(self._std)
        return rows.view(n, height, width, colours).permute(0, 3, 1, 2)

    def _moved(self, batch: torch.Tensor) -> torch.Tensor:
        """On the device; a GPU copies it from pinned memory while it runs an earlier batch."""
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            moved = batch.pin_memory().to(self.device, non_blocking=True)
        runs = torch.cuda.current_stream(self.device)
        runs.wait_stream(self._copies)
        moved.record_stream(runs)  # else its memory could be used anew before it was read
        return moved
