"""Loading the user's networks: factories, weights, preprocessing, class names.

torchvision is imported where its own networks are asked for: it takes two seconds, a quarter of
what a command needs to start, and many commands and networks do without it.
"""

import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import nn

from policy.errors import InputError, shown
from transforms.files import read_bytes, read_text
from transforms.images import InputSpec
from transforms.networks_file import (
    DEFAULT,
    IMAGENET,
    NetworksFile,
    NetworkSpec,
    fingerprint,
)

_IMAGENET_NAMES = str(Path(__file__).with_name("imagenet1k.txt"))
"""The names as torchvision gives them, in its order; a test compares both."""


@dataclass(frozen=True)
class Network:
    """A network with its weights, in eval mode, and what identifies it."""

    spec: NetworkSpec
    module: nn.Module
    input: InputSpec
    fingerprint: str


def class_names(networks: NetworksFile) -> tuple[str, ...]:
    """The names of the classes, in class order."""
    path = _IMAGENET_NAMES if networks.classes == IMAGENET else networks.classes
    text = read_text(path, "the class list")
    names = tuple(line.strip() for line in text.splitlines())
    if not names or not all(names):
        raise InputError(f"{networks.classes}: wanted one class name on every line")
    return names


def decode_side(networks: NetworksFile) -> int | None:
    """Pixels that the shorter side of a JPEG is decoded to at least; None: full size.

    Full unless the file says otherwise: even at three times the input, accuracy is lost
    (docs/images.md).
    """
    return None if networks.decode_side == "full" else networks.decode_side


def load_network(spec: NetworkSpec, networks: NetworksFile, names: tuple[str, ...]) -> Network:
    """Build a network and load its weights; raises InputError if anything does not fit."""
    factory = _factory(spec, networks)
    module, wanted, identity = (_torchvision if spec.weights == DEFAULT else _own)(spec, factory)
    module.eval().requires_grad_(requires_grad=False)
    _check_numbers(spec, module)
    made = fingerprint(spec, wanted, names, identity, decode_side(networks))
    return Network(spec, module, wanted, made)


def _check_numbers(spec: NetworkSpec, module: nn.Module) -> None:
    """Refuse weights that are no numbers; a buffer may hold infinity, as a mask does."""
    wrong = [n for n, weight in module.named_parameters() if not torch.isfinite(weight).all()]
    wrong += [name for name, buffer in module.named_buffers() if torch.isnan(buffer).any()]
    if wrong:
        raise InputError(
            f"network {spec.name!r}: {spec.weights} holds NaN or infinity in {wrong[0]!r}"
            f"{f' and {len(wrong) - 1} more' if wrong[1:] else ''}; get the weights again"
        )


def _factory(spec: NetworkSpec, networks: NetworksFile) -> Callable[..., nn.Module]:
    sys.path += [folder for folder in networks.import_path if folder not in sys.path]
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


def _torchvisions(spec: NetworkSpec, factory: Callable[..., nn.Module]) -> Any:  # noqa: ANN401 - so is torchvision
    """Torchvision's own weights for a factory: their preprocessing and where they are, not them."""
    from torchvision import models  # noqa: PLC0415 - see above

    try:
        return models.get_model_weights(factory).DEFAULT
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"network {spec.name!r}: {spec.model} is not one of torchvision's, so it has no "
            f"{DEFAULT} weights; give a path"
        ) from error


def _torchvision(
    spec: NetworkSpec, factory: Callable[..., nn.Module]
) -> tuple[nn.Module, InputSpec, str]:
    weights = _torchvisions(spec, factory)
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
    _check_kinds(spec, state, module.state_dict())
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"network {spec.name!r}: {spec.weights} does not fit {spec.model} with kwargs "
            f"{spec.kwargs}: {_first_lines(str(error))}"
        ) from error
    wanted = cast("InputSpec", spec.input)  # NetworkSpec refuses weights of one's own without it
    return module, wanted, hashlib.sha256(content).hexdigest()


def _check_kinds(
    spec: NetworkSpec, state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    """Refuse what loading would convert silently: fractions to whole numbers, or the reverse."""
    for name, tensor in state.items():
        ours = wanted.get(name, tensor)
        if (tensor.is_floating_point(), tensor.is_complex()) != (
            ours.is_floating_point(),
            ours.is_complex(),
        ):
            raise InputError(
                f"network {spec.name!r}: {spec.weights} holds {name!r} as {tensor.dtype}; wanted "
                f"{ours.dtype}"
            )


def _state(content: bytes, spec: NetworkSpec) -> Mapping[str, torch.Tensor]:
    """A state dict from safetensors or from torch's own format; nothing is ever unpickled."""
    where = f"network {spec.name!r}: {spec.weights}"
    try:
        if spec.weights.endswith(".safetensors"):
            return safetensors.torch.load(content)
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text says how to run the code
        raise InputError(
            f"{where} holds no readable weights: it is damaged, or a pickle of other objects or "
            "code, which is never run. Wanted safetensors, or a state dict saved with torch.save."
        ) from error
    except Exception as error:  # damaged bytes break torch's reader in any way
        raise InputError(
            f"{where} holds no readable weights: {type(error).__name__}: {shown(error)}. Wanted "
            "safetensors, or a state dict saved with torch.save."
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{where} holds {type(state).__name__}, not a state dict")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"{where} holds {type(tensor).__name__} under {shown(name, 80)!r}, not a tensor; "
                "save only the state dict"
            )
    return state
