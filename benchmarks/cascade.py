"""Two of torchvision's networks as a cascade on any device: end to end, alone, and as predicted.

    .venv/bin/python -m benchmarks.cascade --device cuda --images 20000 --batch-size 512 --compile

Images are photographs enlarged to ImageNet's usual size. Weights are random, which changes nothing
of the time; the cut lets half of the images stop at the first network. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

from benchmarks.machine import describe_machine
from benchmarks.peers.corpus import PER_SHARD, make_large
from benchmarks.peers.cut import Cut, cut_policy
from benchmarks.peers.job import Job, as_text
from benchmarks.photographs import adalabel, said_by, write_policy
from policy.bundle import read_bundle
from policy.rules import always
from policy.table import read_table

SIDE = 430
"""Pixels: a square of as many as 500 x 375 has."""
NETWORK = """
[[network]]
name      = "{name}"
model     = "torchvision.models:{name}"
weights   = "{name}.safetensors"
precision = "{precision}"
input     = {{ resize = 256, crop = 224, mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }}
"""


@dataclass(frozen=True)
class World:
    """A folder with networks file, shards and policies, and how the product is to run there."""

    folder: Path
    options: argparse.Namespace

    @property
    def networks(self) -> str:
        """The networks file."""
        return str(self.folder / "networks.toml")

    @property
    def flags(self) -> tuple[str, ...]:
        """Of every command that runs networks."""
        chosen = ("--device", self.options.device, "--batch-size", str(self.options.batch_size))
        compiled = ("--compile",) if self.options.compile else ()
        return ("--networks", self.networks, *chosen, *compiled)

    @property
    def works(self) -> tuple[str, ...]:
        """Policies: either network alone, and the cascade."""
        return (self.options.first, self.options.second, "cascade")


def main() -> None:
    """Prepare, take turns, print."""
    options = options_of()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), options)
        prepare(world)
        runs: dict[str, list[Any]] = {work: [] for work in world.works}
        alone: dict[str, list[float]] = {name: [] for name in world.works[:2]}
        for _ in range(options.repeats):
            for work, found in runs.items():
                found.append(label(world, work))
            for name, rates in alone.items():
                rates.append(engine_alone(world, name))
        for line in page(world, runs, alone):
            print(line)


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "benchmarks.cascade", description=(__doc__ or "").split("\n")[0]
    )
    data = os.environ.get("ADALABEL_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1000, help="in tars of 100, made of 300")
    parser.add_argument("--first", default="resnet18")
    parser.add_argument("--second", default="resnet152")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def prepare(world: World) -> None:
    """Corpus, networks, measured costs, and three policies."""
    photographs, shards = world.options.data / "photos", world.folder / "shards"
    make_large(photographs, shards, 300, SIDE)
    text = 'classes = "imagenet1k"\n'
    torch.manual_seed(0)
    for name in (world.options.first, world.options.second):
        network = torchvision.models.get_model(name, weights=None)
        save_file(network.state_dict(), world.folder / f"{name}.safetensors")
        text += NETWORK.format(name=name, precision=world.options.precision)
    Path(world.networks).write_text(text)
    some, table = str(shards / "*.tar"), world.folder / "table"
    costs, given = world.folder / "costs.json", (*world.flags, "--input", some)
    adalabel("calibrate", *given, "--output", str(costs))
    adalabel("extract", *given, "--output", str(table))
    write_policies(world, table, costs)
    originals = sorted(shards.glob("*.tar"))
    for number in range(len(originals), -(-world.options.images // PER_SHARD)):
        os.link(originals[number % len(originals)], shards / f"copy{number:06d}.tar")


def write_policies(world: World, table: Path, costs: Path) -> None:
    """Either network alone, and a cut at the median probability of the first."""
    fitted = world.folder / "fitted"
    adalabel(
        *("fit", "--table", str(table), "--costs", str(costs), "--policy", str(fitted)),
        *("--max-loss", "1", "--test-share", "0"),
    )
    graph = read_bundle(str(fitted)).policy.graph
    sure = read_table(str(table)).outputs[world.options.first].probabilities[:, 0]
    cut = Cut(world.options.first, world.options.second, float(np.median(sure)))
    policies = (
        always(graph, world.options.first),
        always(graph, world.options.second),
        cut_policy(graph, cut),
    )
    for work, policy in zip(world.works, policies, strict=True):
        write_policy(world.folder / f"policy-{work}", fitted, table, policy)


def label(world: World, work: str) -> Any:  # noqa: ANN401 - a receipt
    """Label all shards anew."""
    given = ("--policy", str(world.folder / f"policy-{work}"), "--audit-fraction", "0")
    shards, output = str(world.folder / "shards" / "*.tar"), str(world.folder / f"labels-{work}")
    mode = ("--mode", "overwrite")
    return adalabel("classify", *world.flags, *given, "--input", shards, "--output", output, *mode)


def engine_alone(world: World, name: str) -> float:
    """Images a second of one network, on pixels that lie in memory."""
    output = Path(tempfile.mkdtemp(dir=world.folder))
    job = Job(
        str(world.options.data),
        str(world.folder / "shards"),
        str(output),
        world.networks,
        network=name,
        batch_size=world.options.batch_size,
        device=world.options.device,
        compiled=world.options.compile,
    )
    said = said_by([sys.executable, "-m", "benchmarks.peers.engine_alone", as_text(job)])
    return float(said["images"] / said["seconds"])


def page(world: World, runs: dict[str, list[Any]], alone: dict[str, list[float]]) -> list[str]:
    """What was measured, as Markdown."""
    rate = {work: [run["images_per_second"] for run in found] for work, found in runs.items()}
    options = world.options
    compiled = ", compiled" if options.compile else ""
    how = f"{options.device}, {options.precision}, batches of {options.batch_size}{compiled}"
    what = f"{options.images:,} JPEGs of {SIDE} x {SIDE}, {options.repeats} turns"
    lines = [
        f"{describe_machine()}; on {how}; {what}",
        "",
        "| labelling | images/s end to end | compute alone | share |",
        "|---|---|---|---|",
    ]
    for work, rates in rate.items():
        middle, most = statistics.median(rates), statistics.median(alone.get(work, [0.0]))
        share = f"{most:,.0f} | {middle / most:.2f}" if most else " | "
        lines.append(f"| {work} | {middle:,.0f} | {share} |")
    pairs = zip(rate["cascade"], rate[world.options.second], strict=True)
    real = statistics.median(ours / full for ours, full in pairs)
    told = statistics.median(run["speedup"] for run in runs["cascade"])
    lines += [
        "",
        f"Speed-up of the cascade over {world.options.second}: {real:.2f}; {told:.2f} by costs.",
    ]
    spent = json.dumps(runs["cascade"][-1]["time_spent"])
    return [*lines, f"Seconds of the last cascade: {spent}"]


if __name__ == "__main__":
    main()
