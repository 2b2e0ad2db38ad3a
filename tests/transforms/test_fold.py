from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

from transforms.fold import fold

IMAGES = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(1)) - 0.5


def settled(network: nn.Module) -> nn.Module:
    """Normalisations as training leaves them, not as they begin."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.uniform_(-1, 1, generator=random)
    return network.eval().requires_grad_(requires_grad=False)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class Padded(nn.Conv2d):
    """A convolution that pads by itself, and branches on sizes to do it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] % 2 == 0:
            images = nn.functional.pad(images, (0, 1, 0, 1))
        return super().forward(images)


class Doubled(nn.Conv2d):
    """Doubles what it makes, its bias too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(images)


class Squared(nn.Conv2d):
    """Is no linear function of its weights."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) ** 2


class Shared(nn.Module):
    """Two normalisations look at one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(images)
        return self.first(maps) + self.second(maps)


class Twice(nn.Module):
    """One convolution with two normalisations in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.convolution(self.first(self.convolution(images))))


class Untraceable(nn.Module):
    """Branches on values."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(images if images.sum() > 0 else -images))


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: torchvision.models.resnet18(weights=None), 0),
        (lambda: torchvision.models.mobilenet_v2(weights=None), 0),
        (lambda: torchvision.models.densenet121(weights=None), 62),
        (lambda: nn.Sequential(Padded(3, 4, 3, stride=2), nn.BatchNorm2d(4)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=True)), 0),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1),
        (Shared, 2),
        (Twice, 2),
        (Untraceable, 1),
        (lambda: nn.Sequential(Doubled(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(Squared(3, 4, 3, bias=False), nn.BatchNorm2d(4)), 1),
        (
            lambda: nn.Sequential(
                parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
            ),
            1,
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
            1,
        ),
    ],
)
def test_a_folded_network_computes_the_same_with_fewer_normalisations(
    make: Callable[[], nn.Module], left: int
) -> None:
    network = settled(make())
    before = network(IMAGES)
    folded = fold(network, (), IMAGES)
    assert norms(folded) == left
    assert torch.allclose(folded(IMAGES), before, rtol=0, atol=1e-3 * float(before.abs().max()))
    assert torch.equal(network(IMAGES), before)  # the one given is left as it was


def test_what_an_exit_looks_at_is_not_folded_away() -> None:
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    assert norms(fold(network, ("0",), IMAGES)) == 1
    assert norms(fold(network, ("1",), IMAGES)) == 0
