"""What all sides need before the first turn: shards, measured costs, a table, and the policies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.corpus import make_corpus
from benchmarks.peers.cut import Cut, cut_policy
from benchmarks.peers.sides import CUT, FITTED, FULL, SMALLEST
from benchmarks.photographs import (
    BIG,
    MIDDLE,
    NAMES,
    SMALL,
    adalabel,
    write_full_policy,
    write_networks,
    write_policy,
)
from policy.bundle import read_bundle
from policy.table import read_table

MAX_LOSS = 0.01


@dataclass(frozen=True)
class World:
    """Where everything lies; policies are in `folder`, by the name of their work."""

    data: Path
    folder: Path
    flags: tuple[str, ...]

    @property
    def networks(self) -> Path:
        """The networks file."""
        return self.folder / "networks.toml"

    @property
    def shards(self) -> Path:
        """The folder of the tars that are labelled."""
        return self.folder / "shards"

    def policy(self, work: str) -> Path:
        """The policy that does some work."""
        return self.folder / f"policy-{work}"


def prepared(data: Path, folder: Path, images: int, flags: tuple[str, ...]) -> World:
    """Calibrate, extract and fit on the photographs; `flags` go to every command with networks."""
    world = World(data, folder, flags)
    make_corpus(data / "photos", world.shards, images)
    write_networks(world.networks, data, NAMES)
    photos, table, costs = str(data / "photos" / "*.tar"), folder / "table", folder / "costs.json"
    given = ("--networks", str(world.networks), "--input", photos, *flags)
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
    return world


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
