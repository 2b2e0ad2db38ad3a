from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional

from transforms.cut import cut
from transforms.fold import fold
from transforms.fuse import Convolution, fuse, fuse_pieces
from transforms.gmacs import gmacs
from transforms.images import InputSpec

RANDOM = torch.Generator().manual_seed(1)
IMAGES = torch.rand((3, 3, 32, 32), generator=RANDOM) - 0.5


class Block(nn.Module):
    """Two convolutions; what a test makes of them is in `forward` of those below."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)


class Looked(Block):
    """What a convolution makes is needed before and after the activation."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        return torch.relu(maps) - maps


class Residual(Block):
    """A block of ResNet."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(images))) + images)


class BothSides(Block):
    """The sum of two convolutions."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.first(images) + self.second(images))


class Doubled(Block):
    """The sum of a convolution with itself."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        return torch.relu(maps + maps)


class Broadcast(Block):
    """The sum with something smaller."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(images) + self.second(images).mean((2, 3), keepdim=True))


class Scaled(Block):
    """A sum that is none: the other one counts twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.add(self.first(images), images, alpha=2)


class Overwritten(Block):
    """The convolution must see the images before they are overwritten, so it cannot run later."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * 1
        maps = self.first(images)
        return maps + functional.relu(images, inplace=True)


class OverwrittenBetween(Block):
    """One convolution must run before the images are overwritten, the other one after it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * 1
        maps = self.first(images)
        return self.second(torch.relu_(images)) + maps


class AddedInto(Block):
    """What is added to is looked at later."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * 1
        also = images[:]
        images += self.first(images)
        return torch.relu(images) - also


class Doubles(Block):
    """A sum with another type."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.first(images) + images.double()


class Nothing(nn.Identity):
    """Another class may do something, and torch.fx may not look into it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * images if len(images) else images


def hooked_nothing() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU())
    network[1].register_forward_hook(lambda _module, _given, made: 2 * made - 1)
    return network


class Twice(Block):
    """One convolution called twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(torch.relu(self.first(images))))


class Negated(nn.Conv2d):
    """Another class does something else."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -super().forward(images)


class Untraceable(Block):
    """Branches on values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.first(images if images.sum() > 0 else -images)


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    network[0].register_forward_hook(lambda _module, _given, made: 2 * made)
    return network


def calls(network: nn.Module) -> int:
    """What a run of a network calls, its input and its output not counted."""
    assert isinstance(network, fx.GraphModule)
    return sum(node.op not in ("placeholder", "output") for node in network.graph.nodes)


def made_by(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, Convolution)]


@pytest.mark.parametrize(
    ("make", "fused", "left"),
    [
        (lambda: torchvision.models.resnet18(weights=None), 20, 24),
        (lambda: torchvision.models.mobilenet_v2(weights=None), 52, 55),
        (Residual, 2, 2),
        (BothSides, 2, 2),
        (Looked, 1, 3),
        (Doubled, 1, 3),
        (Broadcast, 2, 5),
        (Scaled, 1, 2),
    ],
)
def test_a_fused_network_computes_the_same_with_fewer_calls(
    make: Callable[[], nn.Module], fused: int, left: int
) -> None:
    network = fold(make().eval().requires_grad_(requires_grad=False), (), IMAGES)
    faster = fuse(network, (IMAGES,))
    assert (len(made_by(faster)), calls(faster)) == (fused, left)
    for n in (1, 2, 5):
        images = torch.rand((n, 3, 32, 32), generator=RANDOM)
        for given in (images, images.to(memory_format=torch.channels_last)):
            wanted = network(given)
            near = 1e-5 * float(wanted.abs().max())
            assert torch.allclose(faster(given), wanted, rtol=0, atol=near)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.mobilenet_v3_small(weights=None),
        lambda: torchvision.models.efficientnet_b0(weights=None),
        lambda: torchvision.models.densenet121(weights=None),
        lambda: torchvision.models.googlenet(weights=None, init_weights=False),
        lambda: torchvision.models.convnext_tiny(weights=None),
        lambda: torchvision.models.swin_t(weights=None),
    ],
)
@pytest.mark.slow
def test_torchvisions_networks_compute_the_same_fused(make: Callable[[], nn.Module]) -> None:
    images = torch.rand((2, 3, 224, 224), generator=RANDOM)
    network = make().eval().requires_grad_(requires_grad=False)
    wanted = network(images)
    faster = fuse(network, (images,))
    assert made_by(faster)
    assert torch.allclose(faster(images), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "make",
    [
        Untraceable,
        lambda: nn.Sequential(Negated(3, 4, 3), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="reflect"), nn.ReLU()),
        hooked,
        Twice,
    ],
)
def test_what_cannot_be_fused_runs_as_it_is(make: Callable[[], nn.Module]) -> None:
    network = make().eval().requires_grad_(requires_grad=False)
    assert not made_by(fuse(network, (IMAGES,)))
    assert torch.equal(fuse(network, (IMAGES,))(IMAGES), network(IMAGES))


@pytest.mark.parametrize("images", [IMAGES, IMAGES.abs()])
@pytest.mark.parametrize(
    "make",
    [
        Overwritten,
        OverwrittenBetween,
        AddedInto,
        Doubles,
        hooked_nothing,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Nothing(), nn.ReLU()),
    ],
)
def test_fusing_moves_nothing_past_what_overwrites_and_drops_nothing_that_does_something(
    make: Callable[[], nn.Module], images: torch.Tensor
) -> None:
    """Also where the sample cannot show it: relu changes nothing of images without a sign."""
    network = make().eval()
    faster = fuse(network, (images,))
    assert torch.allclose(faster(IMAGES), network(IMAGES), atol=1e-6)


def test_operators_of_another_torch_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> torch.Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    monkeypatch.setattr(Convolution, "forward", unknown)
    network = Residual().eval()
    assert fuse(network, (IMAGES,)) is network


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.Sigmoid()],
)
def test_activations_are_fused_as_modules_and_as_functions(activation: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), activation).eval()
    faster = fuse(network, (8 * IMAGES,))
    assert (len(made_by(faster)), calls(faster)) == (1, 1)
    assert torch.allclose(faster(8 * IMAGES), network(8 * IMAGES), atol=1e-6)


def test_an_activation_that_oneDNN_is_not_asked_for_stays_behind_its_convolution() -> None:  # noqa: N802
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.3)).eval()
    faster = fuse(network, (IMAGES,))
    assert (len(made_by(faster)), calls(faster)) == (1, 2)
    assert torch.allclose(faster(IMAGES), network(IMAGES), atol=1e-6)


def test_pieces_are_fused_up_to_where_they_were_cut() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    pieces = fuse_pieces(cut(network, ("0",)), IMAGES)
    first = pieces[0](IMAGES)
    assert torch.allclose(first, network[0](IMAGES), atol=1e-6)  # before its activation
    assert float(first.min()) < 0
    assert torch.allclose(pieces[1](first), network(IMAGES), atol=1e-6)
    assert [len(made_by(piece)) for piece in pieces] == [1, 1]


def test_fusing_leaves_what_it_was_given_as_it_was() -> None:
    network, images = Residual().eval(), IMAGES.clone()
    before = network(images)
    fuse(network, (images,))
    assert torch.equal(images, IMAGES)
    assert torch.equal(network(images), before)


def test_costs_are_counted_of_fused_networks_too() -> None:
    network = torchvision.models.resnet18(weights=None).eval().requires_grad_(requires_grad=False)
    spec = InputSpec(resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    pieces = cut(network, ("layer2",))
    assert gmacs(fuse_pieces(pieces, IMAGES), spec) == gmacs(pieces, spec)
