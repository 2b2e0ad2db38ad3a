"""The runs that are disturbed: classify and extract, fresh and over what earlier runs left."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.bundle import Bundle, write_bundle
from policy.features import Feature
from policy.rules import STOP, Policy, Rule
from transforms.networks_file import read_networks
from transforms.stages import Engine

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import tiny

_RECORDS = 6
_SMALL_ONLY = tiny.TOML[: tiny.TOML.index("[[network]]", tiny.TOML.index("[[network]]") + 1)]


@dataclass(frozen=True)
class Scenario:
    """A run: the commands that make what was there before, and the one that is disturbed.

    `before` and `command` give arguments, given the folder of the world; `--output` comes after
    them. `change` is done to the world in between.
    """

    name: str
    before: tuple[Callable[[Path], list[str]], ...]
    command: Callable[[Path], list[str]]
    change: Callable[[Path], None] = lambda _world: None


def make_world(world: Path, shards: int = 3, records: int = _RECORDS) -> None:
    """Shards, each with a broken image and one that comes twice; networks and policies."""
    rng = np.random.default_rng(0)
    for shard in [f"s{number}" for number in range(shards)]:
        members = tiny.image_members(rng, records)
        members[5] = (members[5][0], b"no image")
        tiny.write_tar(world / "shards" / f"{shard}.tar", [*members, *members[:2]])
    texts = {"both": tiny.TOML, "small": _SMALL_ONLY, "other": _SMALL_ONLY.replace("16", "12")}
    for name, text in texts.items():
        tiny.write_networks(world / name, text)
    engine = Engine(read_networks(str(world / "both/networks.toml")), "cpu")
    for name, cut in (("cheap", 0.0), ("dear", 2.0)):
        policy = Policy(
            engine.graph,
            "small",
            (
                Rule(
                    "small",
                    (STOP, "big"),
                    ((1.0,), (0.0,)),
                    (-cut, 0.0),
                    (Feature("small", "max_probability"),),
                ),
            ),
        )
        made_for = dict(engine.fingerprints)
        write_bundle(str(world / name), Bundle(policy, engine.class_names, made_for))


def mend(world: Path) -> None:
    """Put a shard without a broken image in the place of one that has one."""
    path = world / "shards/s1.tar"
    tiny.write_tar(path, tiny.image_members(np.random.default_rng(7), _RECORDS))


def classify(policy: str, *more: str, shards: str = "*") -> Callable[[Path], list[str]]:
    """The arguments of a run of classify."""
    return lambda world: [
        "classify",
        f"--networks={world}/both/networks.toml",
        f"--policy={world}/{policy}",
        *_common(world, shards),
        *more,
    ]


def extract(networks: str, *more: str, shards: str = "*") -> Callable[[Path], list[str]]:
    """The arguments of a run of extract."""
    return lambda world: [
        "extract",
        f"--networks={world}/{networks}/networks.toml",
        *_common(world, shards),
        *more,
    ]


def _common(world: Path, shards: str) -> list[str]:
    return [
        *("--input", f"{world}/shards/{shards}.tar"),
        *("--batch-size", "4", "--threads", "1", "--decode-threads", "1"),
        *("--max-bad-fraction", "0.5"),
    ]


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("classify fresh", (), classify("cheap")),
        Scenario("classify resume", (classify("cheap", shards="s0"),), classify("cheap")),
        Scenario(
            "classify overwrite, a shard fewer",
            (classify("cheap"),),
            classify("dear", "--mode", "overwrite", shards="s[01]"),
        ),
        Scenario(
            "classify retry-failed",
            (classify("cheap"),),
            classify("cheap", "--mode", "retry-failed"),
            mend,
        ),
        Scenario("extract fresh", (), extract("both")),
        Scenario("extract a network added", (extract("small"),), extract("both")),
        Scenario(
            "extract overwrite, a network fewer",
            (extract("both"),),
            extract("other", "--mode", "overwrite"),
        ),
    )
}


def copy_of(before: Path, output: Path) -> None:
    """What a disturbed run starts from."""
    if before.exists():
        shutil.copytree(before, output)
