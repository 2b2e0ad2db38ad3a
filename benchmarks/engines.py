"""What the engine itself costs: 100,000 tiny records through classify with a trivial network.

    ./run test-cluster   # installs the clusters
    .venv/bin/python -m benchmarks.engines [--records 100000] [--runs 1] [--only local-1 flink]

Prints tables for benchmarks/RESULTS.md; fails unless every run decided the same of every record
(label, trail, status). Of a run: all seconds, those in which no shard is under way
(start and end), the rate in between, and microseconds of all seconds per record. Then where the
workers' time went, by their receipts (docs/speed.md).
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from benchmarks.machine import describe_machine

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]

import local_cluster  # noqa: E402 - where it lies was said just now
import tiny  # noqa: E402

PLACES = {
    "local-1": ("local", 1),
    "local-2": ("local", 2),
    "flink": ("flink", 2),
    "spark": ("spark", 2),
}
SHARDS = (100, 1000)
TOML = """
classes = "classes.txt"
import_path = ["{folder}"]
[[network]]
name = "trivial"
model = "trivial:trivial"
weights = "trivial.safetensors"
input = {{ resize = [8, 8], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""
MODULE = """
from torch import nn


def trivial():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
"""


@dataclass(frozen=True)
class Corpus:
    """Where so many records lie, cut into shards in two ways, and what labels them."""

    folder: Path
    records: int
    networks: str
    policy: str

    def glob(self, shards: int) -> str:
        """What matches the corpus in so many shards."""
        return str(self.folder / str(shards) / "*.tar")


def main() -> None:
    """Make the corpus, run every place over it in turn, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(PLACES), default=list(PLACES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as clusters:
        corpus = made(Path(folder), given.records)
        flags: dict[str, list[str]] = {}
        seen: set[str] = set()
        spent: dict[str, Mapping[str, float]] = {}
        print(describe_machine())
        print("\n| where | shards | seconds | start and end | records/s between | us/record |")
        print("|---|---|---|---|---|---|")
        for place in given.only:
            on, workers = PLACES[place]
            if on != "local":
                start = getattr(local_cluster, on)
                cluster = clusters.enter_context(start(Path(folder) / on))
                flags[place] = [*cluster.flags, *cluster.external]
            for shards in SHARDS:
                runs = [
                    run(corpus, shards, on, workers, flags.get(place, []), number)
                    for number in range(given.runs)
                ]
                _print_row(place, shards, corpus.records, [receipt for receipt, _ in runs])
                spent[f"{place}, {shards} shards"] = runs[0][0]["time_spent"]
                seen.update(decided for _, decided in runs)
            clusters.pop_all().close()
        if len(seen) != 1:
            sys.exit("not all runs decided the same")
        _print_time(spent, corpus.records)


def made(folder: Path, records: int) -> Corpus:
    """Records of one small image, cut into shards in two ways; a trivial network and its policy."""
    torch.manual_seed(0)
    (folder / "trivial.py").write_text(MODULE)
    linear = torch.nn.Linear(3, 4)
    state = {f"2.{name}": value for name, value in linear.state_dict().items()}
    save_file(state, folder / "trivial.safetensors")
    (folder / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    (folder / "networks.toml").write_text(TOML.format(folder=folder))
    image = tiny.image_bytes(np.random.default_rng(0), (8, 8))
    for shards in SHARDS:
        (folder / str(shards)).mkdir()
        size = records // shards
        for shard in range(shards):
            members = [(f"{shard * size + row:06d}.png", image) for row in range(size)]
            tiny.write_tar(folder / str(shards) / f"{shard:04d}.tar", members)
    labelled = [
        (f"{n}.{kind}", content)
        for n in range(300)
        for kind, content in (("png", image), ("cls", b"0"))
    ]
    tiny.write_tar(folder / "labelled.tar", labelled)
    corpus = Corpus(folder, records, str(folder / "networks.toml"), str(folder / "policy"))
    table = ("--table", str(folder / "table"))
    networks = ("--networks", corpus.networks)
    adalabel("extract", *networks, "--input", f"{folder}/labelled.tar", "--output", table[1])
    adalabel("fit", *table, "--policy", corpus.policy, "--max-loss", "1", "--test-share", "0")
    return corpus


def run(
    corpus: Corpus, shards: int, on: str, workers: int, flags: list[str], number: int
) -> tuple[Mapping[str, Any], str]:
    """Label the corpus once; the receipt, and a digest of what was decided of each record."""
    output = corpus.folder / f"labels-{on}-{workers}-{shards}-{number}"
    ours = ("--networks", corpus.networks, "--policy", corpus.policy, "--output", str(output))
    where = ("--on", on, "--workers", str(workers), "--audit-fraction", "0")
    receipt = adalabel(
        "classify", *ours, "--input", corpus.glob(shards), *where, "--json", "--", *flags
    )
    files = sorted(output.glob("*.parquet"))
    rows = sorted(
        (row["key"].rpartition("/")[2], row["label"], row["trail"], row["status"])
        for file in files
        for row in pq.read_table(file, columns=["key", "label", "trail", "status"]).to_pylist()
    )
    if len(rows) != corpus.records:
        sys.exit(f"{output}: {len(rows)} rows, wanted {corpus.records}")
    return receipt, hashlib.sha256(repr(rows).encode()).hexdigest()


def adalabel(*arguments: str) -> Any:  # noqa: ANN401 - JSON
    """What a command of this checkout says, as JSON where it does."""
    command = [sys.executable, "-m", "launch.cli", *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout) if "--json" in arguments else None


def _print_row(place: str, shards: int, records: int, runs: list[Mapping[str, Any]]) -> None:
    def median(of: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median(of(run) for run in runs)

    seconds = median(lambda run: run["seconds"])
    rate = median(lambda run: run["images_per_second"])
    edges = median(lambda run: run["seconds"] - records / run["images_per_second"])
    cells = f"{seconds:.1f} | {edges:.1f} | {rate:.0f} | {seconds / records * 1e6:.0f}"
    print(f"| {place} | {shards} | {cells} |", flush=True)


def _print_time(spent: Mapping[str, Mapping[str, float]], records: int) -> None:
    """Microseconds of all workers per record, by what they did; a column for each run."""
    print("\n| worker us/record | " + " | ".join(spent) + " |")
    print("|---|" + "---|" * len(spent))
    for what in dict.fromkeys(what for column in spent.values() for what in column):
        cells = (f"{column.get(what, 0.0) / records * 1e6:.1f}" for column in spent.values())
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
