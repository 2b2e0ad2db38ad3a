"""Three small networks for handwritten digits, for `adalabel demo`."""

import torch
from torch import nn


class DigitNetwork(nn.Module):
    """Convolutions of growing width, each halving the map; a linear layer on the pooled rest."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [n, 10] of images [n, 3, side, side]."""
        logits: torch.Tensor = self.classifier(self.features(images).amax(dim=(2, 3)))
        return logits


def small() -> nn.Module:
    """For 8 x 8 pixels."""
    return DigitNetwork((4, 8))


def medium() -> nn.Module:
    """For 16 x 16 pixels."""
    return DigitNetwork((12, 24))


def large() -> nn.Module:
    """For 32 x 32 pixels."""
    return DigitNetwork((96, 192, 384))
