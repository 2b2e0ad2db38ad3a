from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from policy.answers import answers_from_logits
from policy.errors import InputError
from policy.heads import Head
from transforms.networks_file import NetworksFile, read_networks
from transforms.stages import Engine

EXIT = "small.block1.exit"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))


@pytest.fixture(scope="module")
def engine(networks: NetworksFile) -> Engine:
    return Engine(networks, "cpu", heads={EXIT: tiny.head(np.random.default_rng(0))})


def pixels(n: int, size: tuple[int, int]) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8))


def input_of(engine: Engine, size: str) -> str:
    (name,) = (name for name in engine.inputs if name.startswith(f"input.{size}."))
    return name


def test_the_graph_holds_every_stage_with_what_it_needs(engine: Engine) -> None:
    small, big = input_of(engine, "16x16"), input_of(engine, "24x24")
    assert {stage.name: stage.needs for stage in engine.graph.stages} == {
        "decode": ("image",),
        small: ("decode",),
        "small.stem": (small,),
        "small.block1": ("small.stem",),
        EXIT: ("small.block1",),
        "small": engine.graph.stage["small"].needs,
        big: ("decode",),
        "big": (big,),
    }
    assert set(engine.graph.stage["small"].needs) == {"small.block1", "small.stem"}
    assert engine.graph.answers == (EXIT, "small", "big")
    assert engine.trunks == {"small": ("small.block1",), "big": ()}
    assert engine.fingerprints.keys() == {"small", "big"}


def test_networks_that_want_the_same_input_share_it(tmp_path: Path) -> None:
    text = tiny.TOML.replace("resize = 28, crop = 24", "resize = [16, 16]").replace("0.4", "0.5")
    path = tiny.write_networks(tmp_path, text.replace("0.2", "0.5"))
    assert len(Engine(read_networks(str(path)), "cpu").inputs) == 1


def test_only_the_wanted_networks_are_loaded(networks: NetworksFile) -> None:
    engine = Engine(networks, "cpu", only=["big"])
    assert engine.graph.answers == ("big",)
    assert list(engine.fingerprints) == ["big"]


def test_images_are_decoded_the_same_whichever_networks_are_loaded(
    networks: NetworksFile, engine: Engine
) -> None:
    for name in ("small", "big"):
        alone = Engine(networks, "cpu", only=[name])
        assert alone.decode_side == engine.decode_side is None
        assert alone.fingerprints[name] == engine.fingerprints[name]


def test_a_wanted_network_that_is_missing_is_refused(networks: NetworksFile) -> None:
    with pytest.raises(
        InputError,
        match="'huge', which the policy was fitted for, is not in the networks file; it has small,",
    ):
        Engine(networks, "cpu", only=["small", "huge"])


@pytest.mark.parametrize("exit_stage", ["small.block2.exit", "big.block1.exit", "small.block1"])
def test_a_head_for_an_exit_that_no_network_has_is_refused(
    networks: NetworksFile, exit_stage: str
) -> None:
    head = tiny.head(np.random.default_rng(0))
    with pytest.raises(InputError, match=f"no network has the exit '{exit_stage}' that a head was"):
        Engine(networks, "cpu", heads={exit_stage: head})


def test_a_network_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = tiny.write_networks(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(
        InputError, match=r"'small': gives \(1, 4\) for one image; wanted logits of shape \(1, 2\)"
    ):
        Engine(read_networks(str(path)), "cpu")


def test_an_exit_at_the_end_of_its_network_is_refused(tmp_path: Path) -> None:
    path = tiny.write_networks(tmp_path, tiny.TOML.replace('"block1"', '"linear"'))
    with pytest.raises(InputError, match="linear"):
        Engine(read_networks(str(path)), "cpu")


def test_a_network_that_may_give_nan_is_loaded(tmp_path: Path) -> None:
    text = tiny.TOML.replace("branchy", "not_finite", 1).replace('["block1"]', "[]")
    path = tiny.write_networks(tmp_path, text)
    tiny.save_file(tiny.tiny_networks.not_finite().state_dict(), tmp_path / "small.safetensors")
    assert Engine(read_networks(str(path)), "cpu").graph.answers == ("small", "big")


def test_inputs_are_scaled_normalised_and_in_order(engine: Engine) -> None:
    stage = input_of(engine, "24x24")
    images = pixels(3, (24, 24))
    batch = engine.input_batch(stage, images)
    wanted = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - 0.4) / 0.2
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, wanted)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_answers_are_those_of_the_whole_network_and_of_the_head(
    engine: Engine, networks: NetworksFile
) -> None:
    stage = input_of(engine, "16x16")
    made = {stage: engine.input_batch(stage, pixels(5, (16, 16)))}
    for name in ("small.stem", "small.block1"):
        made[name] = engine.run(name, made)
    whole = tiny.tiny_networks.branchy().eval()
    whole.load_state_dict(tiny_state(networks.network[0].weights))
    wanted = answers_from_logits(whole(made[stage]).numpy(), None)
    found = engine.answer("small", made, None)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    assert np.array_equal(found.classes[:, 0], wanted.classes[:, 0])
    features = made["small.block1"].mean(dim=(2, 3)).half().numpy()
    exits = engine.answer(EXIT, made, 2)
    assert np.array_equal(exits.classes, engine.heads[EXIT].answers(features, 2).classes)


def tiny_state(path: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    return load_file(path)


def test_a_head_of_other_features_is_refused(networks: NetworksFile) -> None:
    head = Head(np.zeros((4, 7), np.float32), np.zeros(4, np.float32))
    with pytest.raises(InputError, match=f"'{EXIT}': head: fitted on 7 features, given 4"):
        Engine(networks, "cpu", heads={EXIT: head})


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 5, 6), (2, 6)])
def test_features_are_the_mean_over_positions_in_float16(shape: tuple[int, ...]) -> None:
    tensor = torch.rand(shape, generator=torch.manual_seed(0))
    axes = {4: (2, 3), 3: (1,), 2: ()}[len(shape)]
    found = Engine.features(tensor)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, tensor.numpy().mean(axis=axes).reshape(2, 6), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 5, 3, 3), (2, 3)), ((2, 3, 3, 5), (1, 2)), ((2, 7, 5), (1,))]
)
def test_features_are_pooled_over_positions_in_every_layout(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    pooled = Engine.features(tensor)
    assert pooled.shape == (2, 5)
    assert np.allclose(pooled, tensor.mean(dim=axes).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no licence')", "network 'small': importing .* fails: .*no licence"),
        ("def build(): raise OSError('no disk')", "build with kwargs .* fails: OSError: no disk"),
        ("def build(): return 3", "build gives int; wanted a torch module"),
        (
            "from torch import nn\nclass N(nn.Module):\n forward = lambda _, x: {1: x}\nbuild = N",
            "'small': gives dict for one image; wanted logits of shape",
        ),
        (
            "from torch import nn\ndef build(): return nn.Linear(7, 4)",
            r"network 'small' fails on images of \(16, 16\): RuntimeError",
        ),
    ],
)
def test_a_users_network_that_fails_is_named_with_what_it_said(
    tmp_path: Path, code: str, message: str, request: pytest.FixtureRequest
) -> None:
    name = f"users_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(code)
    tiny.write_networks(tmp_path)
    state = nn.Linear(7, 4).state_dict() if "Linear" in code else {}
    save_file(state, tmp_path / "w.safetensors")
    text = (
        f'classes = "classes.txt"\nimport_path = ["."]\n[[network]]\nname = "small"\n'
        f'model = "{name}:build"\nweights = "w.safetensors"\n'
        "input = { resize = [16, 16], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }\n"
    )
    (tmp_path / "n.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        Engine(read_networks(str(tmp_path / "n.toml")), "cpu")


def test_folded_weights_are_ordinary_ones(tmp_path: Path) -> None:
    """Some of torch's convolutions ask for a version, which a tensor of inference mode has not."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    save_file(network.state_dict(), str(tmp_path / "weights.safetensors"))
    (tmp_path / "normed.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), "
        "nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "networks.toml").write_text(
        """classes = "classes.txt"
import_path = ["."]
[[network]]
name = "normed"
model = "normed:build"
weights = "weights.safetensors"
input = { resize = [8, 8], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }
"""
    )
    engine = Engine(read_networks(str(tmp_path / "networks.toml")), "cpu")
    ready = engine._modules["normed"]
    assert isinstance(ready, nn.Module)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert not any(weight.is_inference() for weight in ready.parameters())
