"""The networks file: what the networks are, where their weights lie, what they want to see."""

import hashlib
import json
import re
from dataclasses import field, replace
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.schema import STRICT, from_fields
from transforms.images import InputSpec
from transforms.toml_file import at, read_toml

IMAGENET = "imagenet1k"
DEFAULT = "DEFAULT"
Precision = Literal["fp32", "bf16", "fp16"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, config=STRICT)
class NetworkSpec:
    """One [[network]]: factory, weights, input, and the modules after which an exit may sit.

    `model` is module:factory on the import path. `weights` is a path (safetensors, or a state dict
    for `torch.load(weights_only=True)`), or DEFAULT for torchvision's own. Without `input`,
    torchvision's own preprocessing for those weights. `precision` is that of convolutions and
    products; what loses by less than fp32 is kept in it.
    """

    name: str
    model: str
    weights: str
    input: InputSpec | None = None
    exits: tuple[str, ...] = ()
    kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """Refuse names that cannot name a folder and factories that cannot be found."""
        if not _NAME.fullmatch(self.name):
            raise InputError(f"name {self.name!r}: use letters, digits and _ . + - only")
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.model):
            raise InputError(f"model {self.model!r}: wanted module:factory")
        if len(set(self.exits)) < len(self.exits):
            raise InputError(f"exits {self.exits}: a module is named twice")
        if self.weights != DEFAULT and self.input is None:
            raise InputError(f"network {self.name!r} has weights of its own, so it needs an input")


@dataclass(frozen=True, config=STRICT)
class NetworksFile:
    """The whole file, cheapest network first; paths are relative to the file's own folder.

    `classes` is a built-in list (imagenet1k) or a text file with one name a line. `import_path`
    lists folders to put on Python's import path, for factories that are not installed.
    `decode_side`: pixels that the shorter side of a JPEG is decoded to at least, or "full" for its
    full size.
    """

    classes: str
    network: tuple[NetworkSpec, ...]
    import_path: tuple[str, ...] = ()
    decode_side: int | Literal["full"] = "full"

    def __post_init__(self) -> None:
        """Refuse names used twice, a file without networks, and images without pixels."""
        names = [network.name for network in self.network]
        if not names:
            raise InputError("no [[network]] in the file; wanted at least one")
        if len(set(names)) < len(names):
            raise InputError(f"two networks have the same name; names are {', '.join(names)}")
        if isinstance(self.decode_side, int) and self.decode_side < 1:
            raise InputError(
                f'decode_side = {self.decode_side}: wanted at least 1 (pixels), or "full"'
            )


def read_networks(path: str) -> NetworksFile:
    """Read a networks file, with its paths made absolute."""
    fields, folder = read_toml(path, "the networks file")
    networks = from_fields(NetworksFile, fields, path)
    return replace(
        networks,
        classes=networks.classes if networks.classes == IMAGENET else at(folder, networks.classes),
        import_path=tuple(at(folder, entry) for entry in networks.import_path),
        network=tuple(
            network
            if network.weights == DEFAULT
            else replace(network, weights=at(folder, network.weights))
            for network in networks.network
        ),
    )


def fingerprint(
    spec: NetworkSpec,
    wanted: InputSpec,
    class_names: tuple[str, ...],
    weights: str,
    side: int | None,
) -> str:
    """16 hex digits over all that changes a network's answers; `weights` identifies the weights.

    `side` is what JPEGs are decoded to at least; None: full size.
    It covers the factory's name and arguments, not its source: a factory whose code changes its
    meaning must change its name.
    """
    parts: dict[str, object] = {
        "model": spec.model,
        "kwargs": spec.kwargs,
        "weights": weights,
        "input": repr(wanted),
        "exits": spec.exits,
        "classes": class_names,
    }
    if spec.precision != "fp32":
        parts["precision"] = spec.precision
    if side is not None:
        parts["decode_side"] = side
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
