"""Loading the user's networks: factories, weights, preprocessing, class names."""

import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, cast

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import nn

from policy.errors import InputError
from transforms.files import read_bytes, read_text
from transforms.images import InputSpec
from transforms.networks_file import (
    DEFAULT,
    IMAGENET,
    NetworksFile,
    NetworkSpec,
    fingerprint,
)


@dataclass(frozen=True)
class Network:
    """A network with its weights, in eval mode, and what identifies it."""

    spec: NetworkSpec
    module: nn.Module
    input: InputSpec
    fingerprint: str


def class_names(networks: NetworksFile) -> tuple[str, ...]:
    """The names of the classes, in class order."""
    if networks.classes == IMAGENET:
        return tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])
    text = read_text(networks.classes, "the class list")
    names = tuple(line.strip() for line in text.splitlines())
    if not names or not all(names):
        raise InputError(f"{networks.classes}: wanted one class name on every line")
    return names


def load_network(spec: NetworkSpec, networks: NetworksFile, names: tuple[str, ...]) -> Network:
    """Build a network and load its weights; raises InputError if anything does not fit."""
    sys.path += [folder for folder in networks.import_path if folder not in sys.path]
    factory = _factory(spec)
    module, wanted, identity = (_torchvision if spec.weights == DEFAULT else _own)(spec, factory)
    module.eval().requires_grad_(requires_grad=False)
    return Network(spec, module, wanted, fingerprint(spec, wanted, names, identity))


def _factory(spec: NetworkSpec) -> Callable[..., nn.Module]:
    module_name, _, name = spec.model.partition(":")
    try:
        factory: Callable[..., nn.Module] = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise InputError(
            f"network {spec.name!r}: module {module_name!r} cannot be imported ({error}); put its "
            "folder in import_path of the networks file, or install it"
        ) from error
    except AttributeError as error:
        raise InputError(f"network {spec.name!r}: {module_name!r} has no {name!r}") from error
    except Exception as error:  # whatever the user's own module raises
        raise InputError(
            f"network {spec.name!r}: importing {module_name!r} fails: {_short(error)}"
        ) from error
    return factory


def _torchvision(
    spec: NetworkSpec, factory: Callable[..., nn.Module]
) -> tuple[nn.Module, InputSpec, str]:
    try:
        weights = torchvision.models.get_model_weights(factory).DEFAULT
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"network {spec.name!r}: {spec.model} is not one of torchvision's, so it has no "
            f"{DEFAULT} weights; give a path"
        ) from error
    module = _built(spec, partial(factory, weights=weights))
    return module, spec.input or input_of(weights.transforms()), weights.url


def _built(spec: NetworkSpec, factory: Callable[..., nn.Module]) -> nn.Module:
    try:
        module = factory(**spec.kwargs)
    except Exception as error:  # whatever the user's own factory raises
        raise InputError(
            f"network {spec.name!r}: {spec.model} with kwargs {spec.kwargs} fails: {_short(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"network {spec.name!r}: {spec.model} gives {type(module).__name__}; wanted a torch "
            "module"
        )
    return module


def _first_lines(text: str, most: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines()]
    more = f" (and {len(lines) - most} more)" if len(lines) > most else ""
    return " ".join(lines[:most]) + more


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def input_of(preset: Any) -> InputSpec:  # noqa: ANN401 - torchvision's presets share no type
    """Torchvision's own preprocessing for a set of weights."""
    return InputSpec(
        resize=int(preset.resize_size[0]),
        crop=int(preset.crop_size[0]),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _own(spec: NetworkSpec, factory: Callable[..., nn.Module]) -> tuple[nn.Module, InputSpec, str]:
    content = read_bytes(spec.weights, f"weights of network {spec.name!r}")
    state = _state(content, spec)
    module = _built(spec, factory)
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"network {spec.name!r}: {spec.weights} does not fit {spec.model} with kwargs "
            f"{spec.kwargs}: {_first_lines(str(error))}"
        ) from error
    wanted = cast("InputSpec", spec.input)  # NetworkSpec refuses weights of one's own without it
    return module, wanted, hashlib.sha256(content).hexdigest()


def _state(content: bytes, spec: NetworkSpec) -> Mapping[str, torch.Tensor]:
    """A state dict from safetensors or from torch's own format; nothing is ever unpickled."""
    try:
        if spec.weights.endswith(".safetensors"):
            return safetensors.torch.load(content)
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"network {spec.name!r}: {spec.weights} holds no readable weights: {error}. Wanted "
            "safetensors, or a state dict saved with torch.save."
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(
            f"network {spec.name!r}: {spec.weights} holds {type(state).__name__}, not a state dict"
        )
    return state
