"""What is wrong with a network or a head is found before the first image."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from policy.answers import answers_from_logits
from policy.errors import InputError
from policy.heads import Head
from transforms import probe as module
from transforms.careful import DeviceLost
from transforms.networks_file import NetworksFile, read_networks
from transforms.stages import Engine

EXIT = "small.block1.exit"


@pytest.fixture
def networks(tmp_path: Path) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path)))


def refused(networks: NetworksFile, heads: Mapping[str, Head] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Engine(networks, "cpu", heads)
    return str(caught.value)


def test_a_head_of_another_number_of_classes_is_refused(networks: NetworksFile) -> None:
    head = Head(np.zeros((3, 4), np.float32), np.zeros(3, np.float32))
    said = refused(networks, {EXIT: head})
    assert said.startswith(f"exit {EXIT!r}: its head knows 3 classes; wanted 4, one for each name")


def changing(monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    run = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, stage, made: change(run(self, stage, made)))


def test_answers_that_differ_when_run_again_are_refused(
    networks: NetworksFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing(monkeypatch, lambda tensor: tensor + 1e-5 * torch.rand_like(tensor))
    assert "'small' answers differently when the same two images are run again" in refused(networks)


def test_on_a_gpu_the_last_bits_may_differ() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4))
    first, near, far = (answers_from_logits(logits * by, None) for by in (1, 1 + 1e-5, 1.1))
    assert not module._same(first, near, exact=True)
    assert module._same(first, near, exact=False)
    assert not module._same(first, far, exact=False)


def test_answers_that_are_finite_for_no_probe_image_are_refused(
    networks: NetworksFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing(monkeypatch, lambda tensor: tensor * torch.inf)
    assert refused(networks).startswith("'small' gives NaN or infinity for both probe images")


def failing(error: Exception) -> object:
    def change(_: torch.Tensor) -> torch.Tensor:
        raise error

    return change


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            ValueError("odd"),
            InputError,
            "'small.stem' fails on two images of noise: ValueError: od",
        ),
        (
            RuntimeError("CUDA error: unspecified launch failure"),
            DeviceLost,
            "two images .* launch",
        ),
    ],
)
def test_a_stage_that_fails_on_the_probe_is_named(
    networks: NetworksFile,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    changing(monkeypatch, failing(error))
    with pytest.raises(kind, match=message):
        Engine(networks, "cpu")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(
    networks: NetworksFile, number: float
) -> None:
    path = networks.network[1].weights
    state = load_file(path)
    state["block2.0.weight"][1, 1, 1, 1] = number
    state["linear.bias"][0] = number
    save_file(state, path)
    said = refused(networks)
    assert said.startswith("network 'big': ")
    assert "holds NaN or infinity in 'block2.0.weight' and 1 more; get the weights again" in said


def test_weights_of_another_kind_are_refused_by_name(networks: NetworksFile) -> None:
    path = networks.network[0].weights
    state = load_file(path)
    state["linear.bias"] = state["linear.bias"].int()
    save_file(state, path)
    assert "holds 'linear.bias' as torch.int32; wanted torch.float32" in refused(networks)


def test_weights_of_half_precision_are_loaded(networks: NetworksFile) -> None:
    path = networks.network[0].weights
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert Engine(networks, "cpu").fingerprints


@pytest.mark.parametrize(("held", "kind"), [({"a": 1}, "int"), ({1: torch.zeros(2)}, "Tensor")])
def test_a_state_dict_of_other_things_is_refused(
    networks: NetworksFile, tmp_path: Path, held: object, kind: str
) -> None:
    torch.save(held, tmp_path / "w.pt")
    spec = replace(networks.network[0], weights=str(tmp_path / "w.pt"))
    said = refused(replace(networks, network=(spec,)))
    assert f"w.pt holds {kind} under" in said
    assert "save only the state dict" in said
