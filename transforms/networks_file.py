"""The networks file: what the networks are, where their weights lie, what they want to see."""

import hashlib
import json
import posixpath
import re
import tomllib
from dataclasses import field, replace
from pathlib import Path

from pydantic.dataclasses import dataclass

from policy.errors import InputError, shown
from policy.schema import STRICT, from_fields
from transforms.files import read_text
from transforms.images import InputSpec

IMAGENET = "imagenet1k"
DEFAULT = "DEFAULT"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, config=STRICT)
class NetworkSpec:
    """One [[network]]: factory, weights, input, and the modules after which an exit may sit.

    `model` is module:factory on the import path. `weights` is a path (safetensors, or a state dict
    for `torch.load(weights_only=True)`), or DEFAULT for torchvision's own. Without `input`,
    torchvision's own preprocessing for those weights.
    """

    name: str
    model: str
    weights: str
    input: InputSpec | None = None
    exits: tuple[str, ...] = ()
    kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)

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
    """

    classes: str
    network: tuple[NetworkSpec, ...]
    import_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names used twice, and a file without networks."""
        names = [network.name for network in self.network]
        if not names:
            raise InputError("no [[network]] in the file; wanted at least one")
        if len(set(names)) < len(names):
            raise InputError(f"two networks have the same name; names are {', '.join(names)}")


def read_networks(path: str) -> NetworksFile:
    """Read a networks file, with its paths made absolute."""
    text = read_text(path, "the networks file")
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or numbers of many digits
        raise InputError(f"{path}: not valid TOML: {shown(error)}") from error
    networks = from_fields(NetworksFile, fields, path)
    folder = posixpath.dirname(path if "://" in path else str(Path(path).absolute()))
    return replace(
        networks,
        classes=networks.classes if networks.classes == IMAGENET else _at(folder, networks.classes),
        import_path=tuple(_at(folder, entry) for entry in networks.import_path),
        network=tuple(
            network
            if network.weights == DEFAULT
            else replace(network, weights=_at(folder, network.weights))
            for network in networks.network
        ),
    )


def fingerprint(
    spec: NetworkSpec, wanted: InputSpec, class_names: tuple[str, ...], weights: str
) -> str:
    """16 hex digits over all that changes a network's answers; `weights` identifies the weights.

    It covers the factory's name and arguments, not its source: a factory whose code changes its
    meaning must change its name.
    """
    parts = {
        "model": spec.model,
        "kwargs": spec.kwargs,
        "weights": weights,
        "input": repr(wanted),
        "exits": spec.exits,
        "classes": class_names,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _at(folder: str, path: str) -> str:
    return path if "://" in path else posixpath.join(folder, path)
