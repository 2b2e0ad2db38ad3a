from functools import partial

import pytest
import tiny_networks
import torch
import torchvision
from torch import nn

from policy.errors import InputError
from transforms.cut import INPUT, Piece, check_pieces, cut

MODELS = torchvision.models


def batch(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand((n, 3, size, size), generator=torch.manual_seed(0))


def stage_by_stage(pieces: tuple[Piece, ...], images: torch.Tensor) -> dict[str, torch.Tensor]:
    made = {INPUT: images}
    for piece in pieces:
        made[piece.name] = piece(*(made[need] for need in piece.needs))
    return made


@pytest.mark.parametrize(
    ("factory", "modules"),
    [
        (tiny_networks.branchy, ("block1",)),
        (tiny_networks.branchy, ("stem", "block1.0", "block1", "block2")),
        (tiny_networks.opaque, ("pad",)),
        (tiny_networks.opaque, ("pad", "conv")),
        (tiny_networks.untraceable, ()),
    ],
)
def test_a_tiny_network_in_pieces_equals_the_whole_bit_for_bit(
    factory: partial[nn.Module], modules: tuple[str, ...]
) -> None:
    network = factory().eval()
    for size in (9, 16):
        made = stage_by_stage(cut(network, modules), batch(3, size))
        assert torch.equal(made[""], network(batch(3, size)))
        assert set(modules) <= set(made)


@pytest.mark.parametrize(
    ("factory", "modules", "size"),
    [
        (MODELS.resnet18, ("layer1", "layer2.0", "layer2", "layer3.0.conv1"), 32),
        (MODELS.mobilenet_v3_small, ("features.3", "features.6.block.2", "features.11"), 32),
        (MODELS.densenet121, ("features.denseblock1", "features.transition2"), 32),
        (
            partial(MODELS.vit_b_16, image_size=32),
            ("encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_6"),
            32,
        ),
    ],
    ids=["resnet18", "mobilenet_v3_small", "densenet121", "vit_b_16"],
)
@torch.inference_mode()
def test_a_real_network_in_pieces_equals_the_whole_bit_for_bit(
    factory: partial[nn.Module], modules: tuple[str, ...], size: int
) -> None:
    network = factory(weights=None).eval()
    pieces = cut(network, modules)
    check_pieces(network, pieces, batch(3, size))
    made = stage_by_stage(pieces, batch(2, size))
    assert torch.equal(made[""], network(batch(2, size)))
    inside = {}
    for path in modules:
        network.get_submodule(path).register_forward_hook(
            lambda *args, path=path: inside.update({path: args[2].clone()})
        )
    network(batch(2, size))
    for path in modules:
        assert torch.equal(made[path], inside[path]), path


def test_without_cuts_the_network_is_one_piece() -> None:
    network = tiny_networks.branchy().eval()
    (piece,) = cut(network, ())
    assert (piece.name, piece.needs, piece.module) == ("", (INPUT,), network)


def test_a_residual_that_crosses_a_cut_is_a_piece_of_its_own() -> None:
    network = tiny_networks.branchy().eval()
    stem, block1, end = cut(network, ("block1",))
    assert (stem.name, stem.needs) == ("stem", (INPUT,))
    assert (block1.name, block1.needs) == ("block1", ("stem",))
    assert (end.name, set(end.needs)) == ("", {"stem", "block1"})
    made = stage_by_stage((stem, block1, end), batch())
    assert torch.equal(made["stem"], network.stem(batch()))


def test_every_layer_is_in_exactly_one_piece() -> None:
    network = MODELS.resnet18(weights=None).eval()
    pieces = cut(network, ("layer1", "layer2.0.conv1", "layer3"))
    parameters = [p for piece in pieces for p in piece.parameters()]
    assert sorted(map(id, parameters)) == sorted(map(id, network.parameters()))


def test_pieces_come_in_an_order_in_which_they_can_run_whatever_the_order_of_the_cuts() -> None:
    network = MODELS.resnet18(weights=None).eval()
    pieces = cut(network, ("layer3", "layer1"))
    assert [piece.name for piece in pieces] == ["layer1", "layer3", ""]


def test_a_piece_does_not_look_at_what_it_does_not_need() -> None:
    pieces = cut(tiny_networks.branchy().eval(), ("block1", "block2"))
    by_name = {piece.name: piece for piece in pieces}
    assert by_name["block2"].needs == ("block1",)


class Plain(nn.Module):
    """Networks with one oddity each, by what their forward is told to do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 1)
        self.unused = nn.Conv2d(3, 4, 1)
        self.linear = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 2.0))

    def forward(self, images: torch.Tensor) -> object:
        maps = self.conv(images)
        match self.how:
            case "tuple":
                return self.linear(maps.mean(dim=(2, 3))), maps
            case "dict":
                return {"logits": self.linear(maps.mean(dim=(2, 3)))}
            case "parameter":
                maps = torch.relu(maps * self.scale) * self.scale
            case "twice":
                maps = maps + self.conv(images)
            case "flip":
                maps = maps * (1 + images.shape[0] % 2)
        return self.linear(maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["parameter", "twice", "flip"])
def test_odd_networks_are_cut_all_the_same(how: str) -> None:
    network = Plain(how).eval()
    pieces = cut(network, ("conv",))
    check_pieces(network, pieces, batch(3))


@pytest.mark.parametrize(("how", "kind"), [("tuple", "tuple"), ("dict", "dict")])
def test_a_network_that_returns_no_tensor_is_refused(how: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"returns (immutable_)?{kind}; wanted one tensor of logi"):
        cut(Plain(how).eval(), ("conv",))


@pytest.mark.parametrize(
    ("factory", "module", "message"),
    [
        (tiny_networks.untraceable, "conv", "Untraceable cannot be traced, so it takes no exits: "),
        (tiny_networks.untraceable, "conv", "Drop its exits; it then runs whole"),
        (tiny_networks.branchy, "nope", "exit 'nope': no such module; the outermost are stem, bl"),
        (tiny_networks.branchy, "", "exit '': "),
        (tiny_networks.opaque, "pad.inner", "lies inside 'pad', which torch.fx cannot look into"),
        (tiny_networks.opaque, "pad.inner", "choose 'pad' or a module after it"),
        (partial(Plain, ""), "unused", "exit 'unused': this module is not used by the network's"),
    ],
)
def test_a_place_where_it_cannot_be_cut_is_refused(
    factory: partial[nn.Module], module: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cut(factory().eval(), (module,))


@pytest.mark.parametrize(
    "modules",
    [("linear",), ("block1", "linear"), ("block1.1", "block1")],
    ids=["the end", "a block and the end", "a block and its own last layer"],
)
def test_two_names_for_one_place_are_refused_or_both_kept(modules: tuple[str, ...]) -> None:
    network = tiny_networks.branchy().eval()
    try:
        pieces = cut(network, modules)
    except InputError as error:
        assert modules[-1] in str(error)  # noqa: PT017 - refusing is as good as cutting
    else:
        made = stage_by_stage(pieces, batch())
        assert {*modules, ""} <= set(made)


class Flat(nn.Module):
    """Mixes images in the middle: a cut there has no row per image."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten(0)
        self.back = nn.Unflatten(0, (-1, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.back(self.flat(images))


def test_a_cut_without_one_row_for_each_image_is_refused() -> None:
    network = Flat().eval()
    with pytest.raises(InputError, match=r"a cut at 'flat' gives \(6144,\); wanted a tensor with"):
        check_pieces(network, cut(network, ("flat",)), batch(3))


class Pairs(nn.Module):
    """A module in the middle makes two tensors; torch.fx calls it as one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found, _ = self.lstm(self.conv(images).flatten(2).transpose(1, 2))
        return found[:, 0]


def test_a_cut_at_a_module_that_makes_no_tensor_is_refused() -> None:
    network = Pairs().eval()
    with pytest.raises(InputError, match=r"a cut at 'lstm' gives .*wanted a tensor"):
        check_pieces(network, cut(network, ("lstm",)), batch(3, 4))


def test_pieces_that_compute_something_else_are_refused() -> None:
    network, other = tiny_networks.branchy().eval(), tiny_networks.branchy().eval()
    with pytest.raises(InputError, match="Branchy computes something else in pieces than whole"):
        check_pieces(network, cut(other, ("block1",)), batch(3))


class Forgetful(nn.Module):
    """Counts its calls, which a trace freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.conv(images).mean(dim=(2, 3)) * self.seen


def test_a_network_that_changes_from_call_to_call_is_refused() -> None:
    network = Forgetful().eval()
    with pytest.raises(InputError, match="something else in pieces than whole; it takes no exits"):
        check_pieces(network, cut(network, ("conv",)), batch(3))


def test_a_network_that_gives_nan_for_the_sample_is_not_refused() -> None:
    network = tiny_networks.not_finite().eval()
    check_pieces(network, cut(network, ()), batch(3))
