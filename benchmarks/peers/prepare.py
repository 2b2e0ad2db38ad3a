"""What all sides need before the first turn: shards, measured costs, a table, and the policies."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

from benchmarks.peers.corpus import make_corpus, make_large
from benchmarks.peers.cut import Cut, cut_policy
from benchmarks.peers.sides import (
    CAMERA,
    CUT,
    FEW,
    FITTED,
    FULL,
    HEAVY,
    LARGE,
    PHOTOS,
    SMALLEST,
    Side,
)
from benchmarks.photographs import (
    BIG,
    MIDDLE,
    NAMES,
    RESNET,
    SMALL,
    adalabel,
    write_full_policy,
    write_networks,
    write_policy,
)
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.rules import always
from policy.table import read_table
from transforms.networks_file import read_networks
from transforms.stages import Engine

MAX_LOSS = 0.01
SOME = 300
"""Images for a heavy network, and of a camera."""
HEAVY_FILE = "heavy.toml"
_HEAVY = f"""
classes = "imagenet1k"

[[network]]
name    = "{RESNET}"
model   = "torchvision.models:resnet50"
weights = "resnet50.safetensors"
input   = {{ resize = [224, 224], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""


@dataclass(frozen=True)
class World:
    """Where everything lies; policies are in `folder`, by the name of their work."""

    data: Path
    folder: Path
    flags: tuple[str, ...]

    def networks(self, side: Side) -> Path:
        """The networks file of a side."""
        return self.folder / (HEAVY_FILE if side.corpus == FEW else "networks.toml")

    def policy(self, work: str) -> Path:
        """The policy that does some work."""
        return self.folder / f"policy-{work}"


def prepared(data: Path, folder: Path, images: int, flags: tuple[str, ...]) -> World:
    """Calibrate, extract and fit on the photographs; `flags` go to every command with networks."""
    world = World(data, folder, flags)
    photographs, file = data / "photos", folder / "networks.toml"
    make_corpus(photographs, folder / PHOTOS, images)
    make_corpus(photographs, folder / FEW, SOME)
    make_large(photographs, folder / LARGE, SOME)
    write_networks(file, data, NAMES)
    photos, table, costs = str(data / "photos" / "*.tar"), folder / "table", folder / "costs.json"
    given = ("--networks", str(file), "--input", photos, *flags)
    adalabel("calibrate", *given, "--output", str(costs))
    adalabel("extract", *given, "--output", str(table))
    fitted = world.policy(FITTED)
    adalabel(
        *("fit", "--table", str(table), "--costs", str(costs), "--policy", str(fitted)),
        *("--max-loss", str(MAX_LOSS)),
    )
    write_full_policy(world.policy(FULL), fitted, table, BIG)
    write_full_policy(world.policy(SMALLEST), fitted, table, SMALL)
    graph = read_bundle(str(fitted)).policy.graph
    cut = Cut(MIDDLE, BIG, least_cut(table))
    write_policy(world.policy(CUT), fitted, table, cut_policy(graph, cut))
    shutil.copytree(world.policy(SMALLEST), world.policy(CAMERA))
    _write_heavy(world)
    return world


def _write_heavy(world: World) -> None:
    """resnet50 with random weights, and the policy that runs it on all images."""
    torch.manual_seed(0)
    weights = torchvision.models.resnet50(weights=None).state_dict()
    save_file(weights, world.folder / "resnet50.safetensors")
    path = world.folder / HEAVY_FILE
    path.write_text(_HEAVY)
    engine = Engine(read_networks(str(path)), "cpu")
    policy = always(engine.graph, RESNET)
    bundle = Bundle(policy, engine.class_names, engine.fingerprints)
    write_bundle(str(world.policy(HEAVY)), bundle)


def least_cut(table: Path) -> float:
    """The lowest probability at which stopping early costs at most MAX_LOSS of the photographs.

    Found on the images it is used on: it is work to be timed, not a promise.
    """
    recorded = read_table(str(table))
    first, full = recorded.outputs[MIDDLE], recorded.outputs[BIG]
    lost = (full.classes[:, 0] == recorded.labels) & (first.classes[:, 0] != recorded.labels)
    sure = first.probabilities[:, 0]
    falling = np.argsort(-sure)
    allowed = np.cumsum(lost[falling]) <= MAX_LOSS * len(sure)
    return float(sure[falling][allowed][-1])
