"""The demo's large network, slow enough that something can happen while it runs."""

import os
import time
from pathlib import Path

import torch

from pipelines import demo_networks

SECONDS_PER_IMAGE = 0.01


class Slow(demo_networks.DigitNetwork):
    """Waits for each image, and fails for all while the file named in SLOW_FAILS is there."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fails = os.environ.get("SLOW_FAILS")
        if fails and Path(fails).exists():
            raise ValueError("told to fail")
        time.sleep(SECONDS_PER_IMAGE * len(images))
        return super().forward(images)


def large() -> torch.nn.Module:
    """For 32 x 32 pixels."""
    return Slow((96, 192, 384))
