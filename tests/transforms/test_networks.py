import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import torchvision
from safetensors.torch import load_file

from policy.errors import InputError
from transforms.networks import class_names, decode_side, input_of, load_network
from transforms.networks_file import NetworksFile, NetworkSpec, read_networks

NAMES = ("cat", "dog", "newt", "yak")


@pytest.fixture
def networks(tmp_path: Path) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path)))


def small(networks: NetworksFile, **changes: object) -> NetworkSpec:
    return replace(networks.network[0], **changes)


def test_safetensors_are_loaded_in_eval_mode_without_gradients(networks: NetworksFile) -> None:
    spec = small(networks)
    network = load_network(spec, networks, NAMES)
    state = load_file(spec.weights)
    assert {k: v.tolist() for k, v in network.module.state_dict().items()} == {
        k: v.tolist() for k, v in state.items()
    }
    assert not network.module.training
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    assert (network.spec, network.input) == (spec, spec.input)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_of_torch_save_is_loaded(
    networks: NetworksFile, tmp_path: Path, *, zipped: bool
) -> None:
    path = str(tmp_path / "w.pt")
    state = load_file(networks.network[0].weights)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    network = load_network(small(networks, weights=path), networks, NAMES)
    assert torch.equal(network.module.state_dict()["linear.bias"], state["linear.bias"])


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.parametrize(
    "save", [torch.save, lambda o, p: Path(p).write_bytes(pickle.dumps(o, protocol=2))]
)
def test_a_pickle_with_code_is_refused_and_not_run(
    networks: NetworksFile, tmp_path: Path, save: Callable[[object, str], object], name: str
) -> None:
    path = str(tmp_path / name)
    save({"linear.bias": Bomb(tmp_path / "fired")}, path)
    wanted = "SafetensorError" if name == "w.safetensors" else "it is damaged, or a pickle of other"
    with pytest.raises(
        InputError, match=rf"{name} holds no readable weights: {wanted}.*Wanted safetensors"
    ):
        load_network(small(networks, weights=path), networks, NAMES)
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_weights_are_refused(networks: NetworksFile, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "w.pt":
        torch.save(load_file(networks.network[0].weights), path)
    else:
        path.write_bytes(Path(networks.network[0].weights).read_bytes())
    whole = path.read_bytes()
    for end in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=rf"{name} (holds no readable weights|does not fit)"):
            load_network(small(networks, weights=str(path)), networks, NAMES)


@pytest.mark.parametrize(("held", "kind"), [([1, 2], "list"), (torch.zeros(3), "Tensor")])
def test_what_is_no_state_dict_is_refused(
    networks: NetworksFile, tmp_path: Path, held: object, kind: str
) -> None:
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(InputError, match=f"w.pt holds {kind}, not a state dict"):
        load_network(small(networks, weights=str(tmp_path / "w.pt")), networks, NAMES)


def test_missing_weights_are_refused(networks: NetworksFile) -> None:
    with pytest.raises(InputError, match=r"/no/w.pt: weights of network 'small' cannot be read: "):
        load_network(small(networks, weights="/no/w.pt"), networks, NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kwargs": {"width": 5}}, "safetensors does not fit tiny_networks:branchy .*size mism"),
        ({"model": "tiny_networks:opaque"}, "does not fit tiny_networks:opaque .*Missing key"),
        ({"kwargs": {"wings": 2}}, "tiny_networks:branchy with kwargs .* fails: .*wings"),
        ({"model": "no_such_module:f"}, "'no_such_module' cannot be imported .*in import_path of"),
        ({"model": "tiny_networks:nope"}, "network 'small': 'tiny_networks' has no 'nope'"),
        ({"weights": "DEFAULT"}, "branchy is not one of torchvision's, so it has no DEFAULT weig"),
    ],
)
def test_what_does_not_fit_is_refused(
    networks: NetworksFile, changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=rf"(?s){message}"):
        load_network(small(networks, **changes), networks, NAMES)


def test_factories_are_found_in_the_import_path(
    networks: NetworksFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "made_here.py").write_text("from tiny_networks import branchy as mine")
    there = replace(networks, import_path=(str(tmp_path / "code"),))
    for _ in range(2):
        load_network(small(there, model="made_here:mine"), there, NAMES)
    assert sys.path.count(str(tmp_path / "code")) == 1
    assert sys.path[-1] == str(tmp_path / "code")  # last, so that it shadows nothing


def test_the_fingerprint_covers_the_weights_and_not_where_they_lie(
    networks: NetworksFile, tmp_path: Path
) -> None:
    spec = small(networks)
    first = load_network(spec, networks, NAMES).fingerprint
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(Path(spec.weights).read_bytes())
    assert load_network(replace(spec, weights=str(moved)), networks, NAMES).fingerprint == first
    state = load_file(spec.weights)
    state["linear.bias"][0] += 1
    tiny.save_file(state, moved)
    assert load_network(replace(spec, weights=str(moved)), networks, NAMES).fingerprint != first


MODEL = "torchvision.models:resnet18"
WEIGHTS = torchvision.models.ResNet18_Weights.DEFAULT


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Torchvision's weights, made here instead of loaded; gives the URLs that were asked for."""
    urls = []

    def load(url: str, **_: object) -> Mapping[str, torch.Tensor]:
        urls.append(url)
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None).state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    return urls


def test_default_weights_come_with_torchvisions_own_preprocessing(
    networks: NetworksFile, offline: list[str]
) -> None:
    spec = NetworkSpec("resnet18", MODEL, "DEFAULT")
    network = load_network(spec, networks, NAMES)
    assert offline == [WEIGHTS.url]
    assert network.input == input_of(WEIGHTS.transforms())
    assert (network.input.resize, network.input.crop) == (256, 224)
    torch.manual_seed(0)
    wanted = torchvision.models.resnet18(weights=None).state_dict()
    assert torch.equal(network.module.state_dict()["conv1.weight"], wanted["conv1.weight"])


def test_an_input_of_ones_own_goes_before_torchvisions(
    networks: NetworksFile, offline: list[str]
) -> None:
    wanted = networks.network[0].input
    spec = NetworkSpec("resnet18", MODEL, "DEFAULT", input=wanted)
    assert load_network(spec, networks, NAMES).input == wanted
    assert offline


def test_kwargs_that_torchvision_does_not_know_are_refused(
    networks: NetworksFile, offline: list[str]
) -> None:
    spec = NetworkSpec("resnet18", MODEL, "DEFAULT", kwargs={"wings": 2})
    with pytest.raises(InputError, match=r"resnet18 with kwargs .* fails: .*wings"):
        load_network(spec, networks, NAMES)
    assert offline == []


@pytest.mark.parametrize("model", ["resnet50", "efficientnet_b0", "vit_b_16", "swin_t"])
def test_every_torchvision_preset_becomes_an_input(model: str) -> None:
    preset = torchvision.models.get_model_weights(model).DEFAULT.transforms()
    spec = input_of(preset)
    assert spec.size == (preset.crop_size[0],) * 2
    assert spec.resize == preset.resize_size[0]
    assert spec.interpolation == preset.interpolation.value
    assert (spec.mean, spec.std) == (tuple(preset.mean), tuple(preset.std))


def test_images_are_decoded_at_full_size_unless_the_file_says_otherwise(
    networks: NetworksFile,
) -> None:
    assert decode_side(networks) is None
    assert decode_side(replace(networks, decode_side="full")) is None
    assert decode_side(replace(networks, decode_side=20)) == 20


@pytest.mark.parametrize("side", [28, 27, "full"])  # 28: the largest input, once the rule
def test_every_fingerprint_changes_with_what_images_are_decoded_to(
    networks: NetworksFile, side: int | str
) -> None:
    before = [load_network(spec, networks, NAMES).fingerprint for spec in networks.network]
    changed = replace(networks, decode_side=side)
    after = [load_network(spec, changed, NAMES).fingerprint for spec in networks.network]
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert same == [side == "full"] * 2


@pytest.mark.parametrize("side", [16, "full"])
def test_a_larger_network_changes_no_fingerprint(networks: NetworksFile, side: int | str) -> None:
    both, small = replace(networks, decode_side=side), networks.network[0]
    alone = load_network(small, replace(both, network=(small,)), NAMES).fingerprint
    assert load_network(small, both, NAMES).fingerprint == alone


def test_class_names_are_the_lines_of_a_file(networks: NetworksFile) -> None:
    assert class_names(networks) == NAMES


def test_imagenet_has_the_thousand_names_of_torchvision(networks: NetworksFile) -> None:
    names = class_names(replace(networks, classes="imagenet1k"))
    assert len(names) == 1000
    assert names[0] == "tench"
    assert names == tuple(WEIGHTS.meta["categories"])


@pytest.mark.parametrize("text", ["", "\n", "cat\n\ndog\n", "cat\n  \n"])
def test_a_class_list_with_an_empty_line_is_refused(networks: NetworksFile, text: str) -> None:
    Path(networks.classes).write_text(text)
    with pytest.raises(InputError, match=r"classes.txt: wanted one class name on every line"):
        class_names(networks)


def test_a_missing_class_list_is_refused(networks: NetworksFile) -> None:
    with pytest.raises(InputError, match=r"/no/classes.txt: the class list cannot be read"):
        class_names(replace(networks, classes="/no/classes.txt"))


def test_a_class_list_that_is_not_utf8_is_refused(networks: NetworksFile) -> None:
    Path(networks.classes).write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes.txt: .*(UTF-8|utf-8)"):
        class_names(networks)
