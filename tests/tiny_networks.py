"""Networks of a few hundred weights: what a user's own module of factories looks like."""

import torch
from torch import nn


class Branchy(nn.Module):
    """Two blocks with a residual connection, then a linear layer; both blocks can exit."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.block1 = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.linear = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        maps = self.block1(stem)
        maps = self.block2(maps) + stem  # `stem` crosses a cut after block1
        return self.linear(maps.mean(dim=(2, 3)))


class SizedPad(nn.Module):
    """Pads by a rule that branches on sizes, which torch.fx cannot look into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] % 2:
            images = nn.functional.pad(images, (0, 1, 0, 1))
        return self.inner(images)


class Opaque(nn.Module):
    """Holds a module that torch.fx cannot look into; can be cut around it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pad = SizedPad()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(self.pad(images))
        return self.linear(maps.mean(dim=(2, 3)))


class Untraceable(nn.Module):
    """Branches on its input's size in its own forward, so torch.fx cannot trace it at all."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] > 4:
            images = self.conv(images)
        return self.linear(images.mean(dim=(2, 3)))


class NotFinite(nn.Module):
    """Gives NaN for images that are brighter than grey on average."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(2, 3))
        bright = mean.mean(dim=1, keepdim=True) > 0
        return torch.where(bright, torch.nan, self.linear(mean))


class Looking(Branchy):
    """Looks at its pixels, which there are none of on torch's meta device."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dark = float(images.mean()) < -1
        return super().forward(-images if dark else images)


def branchy(classes: int = 4, width: int = 4) -> nn.Module:
    return Branchy(classes, width)


def looking(classes: int = 4, width: int = 4) -> nn.Module:
    return Looking(classes, width)


def opaque(classes: int = 4) -> nn.Module:
    return Opaque(classes)


def untraceable(classes: int = 4) -> nn.Module:
    return Untraceable(classes)


def not_finite(classes: int = 4) -> nn.Module:
    return NotFinite(classes)
