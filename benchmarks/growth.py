"""How time and memory grow: with records, shards, networks and classes.

    .venv/bin/python -m benchmarks.growth [--records 1000]

Records of one small image, and networks that are one product with a matrix, so that what is
measured is the program. Each run is a process of its own. Prints tables for benchmarks/RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.machine import describe_machine
from benchmarks.photographs import ENVIRONMENT, ROOT

sys.path.append(str(ROOT / "tests"))

import tiny

GROWTH = (1, 10, 100)
SHARDS = (10, 100, 1000)
NETWORKS = (1, 2, 4, 8)
CLASSES = (10, 100, 1000, 21841)
MODULE = """
from torch import nn


def plain(classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
"""
NETWORK = """
[[network]]
name = "{name}"
model = "plain:plain"
kwargs = {{ classes = {classes} }}
weights = "{name}.safetensors"
input = {{ resize = [8, 8], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""


@dataclass(frozen=True)
class Ran:
    """What a command said, how long it took in all, and the most memory it held, in MB."""

    said: Any
    peak_mb: float


def run(*arguments: str) -> Ran:
    """Run a command of the product in a process of its own."""
    command = [sys.executable, "-m", "launch.cli", *arguments, "--json"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
        output.seek(0)
        return Ran(json.loads(output.read()), used.ru_maxrss / 1000)


def write_networks(folder: Path, classes: int, number: int) -> str:
    """A networks file of so many networks of so many classes."""
    folder.mkdir()
    (folder / "plain.py").write_text(MODULE)
    (folder / "classes.txt").write_text("\n".join(f"class {n}" for n in range(classes)) + "\n")
    text = 'classes = "classes.txt"\nimport_path = ["."]\n'
    for n in range(number):
        torch.manual_seed(n)
        linear = torch.nn.Linear(3, classes)
        state = {f"2.{name}": value for name, value in linear.state_dict().items()}
        save_file(state, folder / f"plain{n}.safetensors")
        text += NETWORK.format(name=f"plain{n}", classes=classes)
    (folder / "networks.toml").write_text(text)
    return str(folder / "networks.toml")


def write_corpus(folder: Path, records: int, shards: int) -> str:
    """So many records in so many shards; what matches them."""
    folder.mkdir()
    rng, size = np.random.default_rng(0), records // shards
    image = tiny.image_bytes(rng, (8, 8))
    for shard in range(shards):
        members = [
            (f"{row:06d}.{kind}", content)
            for row in range(size)
            for kind, content in (("png", image), ("cls", b"1"))
        ]
        tiny.write_tar(folder / f"{shard:04d}.tar", members)
    return str(folder / "*.tar")


def label(work: Path, name: str, corpus: str) -> Ran:
    """Label a corpus by the first network of `work/classify`."""
    networks, policy = str(work / "classify" / "networks.toml"), work / "policy"
    if not policy.exists():
        few, table = write_corpus(work / "labelled", 300, 1), str(work / "labelled-table")
        run("extract", "--networks", networks, "--input", few, "--output", table)
        fit = ("--max-loss", "1", "--test-share", "0", "--policy", str(policy))
        run("fit", "--table", table, *fit)
    given = ("--networks", networks, "--policy", str(policy), "--input", corpus)
    return run("classify", *given, "--output", str(work / name))


def extract(work: Path, name: str, networks: str, corpus: str) -> Ran:
    """Extract all classes of all networks."""
    given = ("--networks", networks, "--input", corpus, "--topk", "0")
    return run("extract", *given, "--output", str(work / name))


def table(title: str, rows: Sequence[tuple[object, int, Ran]]) -> None:
    """Print what was measured: seconds of the work, per record too, and peak memory."""
    print(f"\n| {title} | seconds | us a record | peak MB |\n|---|---|---|---|")
    for what, records, ran in rows:
        busy = ran.said["seconds"]
        each = busy / records * 1e6
        print(f"| {what} | {busy:.1f} | {each:.0f} | {ran.peak_mb:.0f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1000, help="of the smallest corpus")
    least = parser.parse_args().records
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_networks(work / "classify", 1000, 1)
        rows: list[tuple[object, int, Ran]] = []
        for times in GROWTH:
            corpus = write_corpus(work / f"corpus{times}", least * times, 10 * times)
            ran = label(work, f"labels{times}", corpus)
            rows.append((f"{least * times:,} in {10 * times} shards", least * times, ran))
        table("classify, records", rows)
        rows = []
        for shards in SHARDS:
            corpus = write_corpus(work / f"shards{shards}", least * 10, shards)
            rows.append((shards, least * 10, label(work, f"labels-{shards}", corpus)))
        table(f"classify, shards of {least * 10:,} records", rows)
        corpus = str(work / "corpus10" / "*.tar")
        rows = []
        for number in NETWORKS:
            networks = write_networks(work / f"networks{number}", 1000, number)
            ran = extract(work, f"table-{number}", networks, corpus)
            rows.append((number, least * 10, ran))
        table("extract, networks of 1,000 classes, all kept", rows)
        rows = []
        for classes in CLASSES:
            networks = write_networks(work / f"classes{classes}", classes, 1)
            ran = extract(work, f"table-of-{classes}", networks, corpus)
            rows.append((f"{classes:,}", least * 10, ran))
        table("extract, classes, all kept", rows)


if __name__ == "__main__":
    main()
