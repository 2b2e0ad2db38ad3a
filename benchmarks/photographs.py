"""The photographs' networks, the policies over them, and running the product in a child process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.bundle import Bundle, read_bundle, write_bundle
from policy.rules import Policy, always
from policy.table_manifest import read_manifest

ROOT = Path(__file__).parents[1]
# Memory settings and threads are part of what is compared, so no side inherits them.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("MALLOC_") and name != "OMP_NUM_THREADS"
}


@dataclass(frozen=True)
class Spec:
    """A network of the data folder; `kwargs` in TOML, `side` in pixels of its square input."""

    name: str
    module: str
    kwargs: str
    weights: str
    side: int


SPECS = (
    Spec("mobilenet_v1_025", "mobilenet_v1", "{ alpha = 0.25 }", "mobilenet_v1_0.25_128", 128),
    Spec("mobilenet_v1_05", "mobilenet_v1", "{ alpha = 0.5 }", "mobilenet_v1_0.5_160", 160),
    Spec("mobilenet_v2_same", "mobilenet_v2_same", "{}", "mobilenet_v2", 224),
)
NAMES = tuple(spec.name for spec in SPECS)
SMALL, MIDDLE, BIG = NAMES
RESNET = "resnet50"
"""torchvision's, with random weights: what it says is nothing, but it takes its time."""

_NETWORKS = """
classes = "imagenet1k"
import_path = ["{folder}"]
"""
_NETWORK = """
[[network]]
name    = "{name}"
model   = "{module}:{module}"
kwargs  = {kwargs}
weights = "{folder}/{weights}.safetensors"
input   = {{ resize = [{side}, {side}], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""


def write_networks(path: Path, data: Path, names: tuple[str, ...]) -> Path:
    """A networks file of the photographs' networks."""
    folder = (data / "networks").absolute()
    text = _NETWORKS.format(folder=folder)
    for spec in SPECS:
        if spec.name in names:
            text += _NETWORK.format(folder=folder, **vars(spec))
    path.write_text(text)
    return path


def write_policy(folder: Path, like: Path, table: Path, policy: Policy) -> None:
    """A policy over the graph of another one, with the fingerprints of the table's networks."""
    networks = read_manifest(str(table)).networks
    used = {name: networks[name].fingerprint for name in policy.reachable(policy.start)}
    write_bundle(str(folder), Bundle(policy, read_bundle(str(like)).class_names, used))


def write_full_policy(folder: Path, like: Path, table: Path, answer: str = BIG) -> None:
    """The policy that labels every image with one network."""
    graph = read_bundle(str(like)).policy.graph
    write_policy(folder, like, table, always(graph, answer))


def said_by(command: list[str]) -> Any:  # noqa: ANN401 - whatever it prints
    """Run a command from the root in a process of its own; the JSON it prints."""
    done = subprocess.run(  # noqa: S603 - our own commands
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def cli(*arguments: str) -> list[str]:
    """One command of the product, as this checkout has it."""
    return [sys.executable, "-m", "launch.cli", *arguments, "--json"]


def adalabel(*arguments: str) -> Any:  # noqa: ANN401 - whatever it prints
    """What one command of the product says."""
    return said_by(cli(*arguments))
