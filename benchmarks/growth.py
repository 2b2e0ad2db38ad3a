"""How time and memory grow: with records, shards, image sizes, networks and classes.

    .venv/bin/python -m benchmarks.growth [--records 1000] [--only records --only classes ...]

Records of one small image, and networks that are one product with a matrix, so that what is
measured is the program. Each run is a process of its own, with its workers below it. Prints tables
for benchmarks/RESULTS.md. Linux only.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.machine import describe_machine
from benchmarks.peaks import Ran, run
from benchmarks.photographs import ROOT

sys.path.append(str(ROOT / "tests"))

import tiny

GROWTH = (1, 10, 100)
SHARDS = (10, 100, 1000)
NETWORKS = (1, 2, 4, 8)
CLASSES = (10, 100, 1000, 21841)
SIDES = (64, 512, 2048)
_STEEP = 1.25
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


def write_corpus(folder: Path, records: int, shards: int, side: int = 8) -> str:
    """So many records in so many shards; what matches them."""
    if folder.exists():
        return str(folder / "*.tar")
    folder.mkdir()
    rng, size = np.random.default_rng(0), records // shards
    image = tiny.image_bytes(rng, (side, side))
    for shard in range(shards):
        members = [
            (f"{row:06d}.{kind}", content)
            for row in range(size)
            for kind, content in (("png", image), ("cls", b"1"))
        ]
        tiny.write_tar(folder / f"{shard:04d}.tar", members)
    return str(folder / "*.tar")


def label(work: Path, name: str, corpus: str, *flags: str) -> Ran:
    """Label a corpus by the first network of `work/classify`."""
    networks, policy = str(work / "classify" / "networks.toml"), work / "policy"
    if not policy.exists():
        write_networks(work / "classify", 1000, 1)
        few, table = write_corpus(work / "labelled", 300, 1), str(work / "labelled-table")
        run("extract", "--networks", networks, "--input", few, "--output", table)
        fit = ("--max-loss", "1", "--test-share", "0", "--policy", str(policy))
        run("fit", "--table", table, *fit)
    given = ("--networks", networks, "--policy", str(policy), "--input", corpus)
    return run("classify", *given, "--output", str(work / name), *flags)


def extract(work: Path, name: str, networks: str, corpus: str) -> Ran:
    """Extract all classes of all networks."""
    given = ("--networks", networks, "--input", corpus, "--topk", "0")
    return run("extract", *given, "--output", str(work / name))


def table(title: str, rows: Sequence[tuple[object, int, Ran]]) -> None:
    """Print what came of each run of so many records, and what grew with what."""
    print(f"\n| {title} | seconds | us a record | peak MB | of its largest worker |")
    print("|---|---|---|---|---|")
    for what, records, ran in rows:
        busy = ran.said["seconds"]
        worker = f"{ran.worker_mb:.0f}" if ran.worker_mb else "-"
        print(
            f"| {what} | {busy:.1f} | {busy / records * 1e6:.0f} | {ran.peak_mb:.0f} | {worker} |"
        )
    (_, few, first), (_, many, last) = rows[0], rows[-1]
    memory = max(last.peak_mb / first.peak_mb, last.worker_mb / (first.worker_mb or 1))
    says = [f"memory {memory:.2f} x: {'flat' if memory <= _STEEP else 'NOT FLAT'}"]
    if many > few:
        time_each = (last.said["seconds"] / first.said["seconds"]) * few / many
        linear = "linear or less" if time_each <= _STEEP else "MORE THAN LINEAR"
        says.append(f"time of a record {time_each:.2f} x: {linear}")
    print(f"\nFrom the first to the last: {'; '.join(says)}.", flush=True)


def by_records(work: Path, least: int) -> None:
    """More records in more shards, with one worker and with two."""
    for flags in ((), ("--workers", "2")):
        rows = []
        for times in GROWTH:
            corpus = write_corpus(work / f"corpus{times}", least * times, 10 * times)
            ran = label(work, f"labels{times}{len(flags)}", corpus, *flags)
            rows.append((f"{least * times:,} in {10 * times} shards", least * times, ran))
        table(f"classify, records {' '.join(flags)}", rows)


def by_shards(work: Path, least: int) -> None:
    """The same records in more shards."""
    rows = []
    for shards in SHARDS:
        corpus = write_corpus(work / f"shards{shards}", least * 10, shards)
        rows.append((shards, least * 10, label(work, f"labels-{shards}", corpus)))
    table(f"classify, shards of {least * 10:,} records", rows)


def by_image_size(work: Path, least: int) -> None:
    """Larger images, of noise in PNG, which is the dearest to hold."""
    rows, few = [], max(1, least // 5)
    for side in SIDES:
        corpus = write_corpus(work / f"side{side}", few, 1, side)
        rows.append((f"{side} x {side}", few, label(work, f"labels-of-{side}", corpus)))
    table(f"classify, pixels of {few} images", rows)


def by_networks(work: Path, least: int) -> None:
    """More networks, all of whose answers are kept."""
    corpus, rows = write_corpus(work / "corpus10", least * 10, 100), []
    for number in NETWORKS:
        networks = write_networks(work / f"networks{number}", 1000, number)
        rows.append((number, least * 10, extract(work, f"table-{number}", networks, corpus)))
    table("extract, networks of 1,000 classes, all kept", rows)


def by_classes(work: Path, least: int) -> None:
    """More classes, all of which are kept."""
    corpus, rows = write_corpus(work / "corpus10", least * 10, 100), []
    for classes in CLASSES:
        networks = write_networks(work / f"classes{classes}", classes, 1)
        ran = extract(work, f"table-of-{classes}", networks, corpus)
        rows.append((f"{classes:,}", least * 10, ran))
    table("extract, classes, all kept", rows)


MEASURED: dict[str, Callable[[Path, int], None]] = {
    "records": by_records,
    "shards": by_shards,
    "images": by_image_size,
    "networks": by_networks,
    "classes": by_classes,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1000, help="of the smallest corpus")
    parser.add_argument("--only", choices=MEASURED, action="append", help="one of the tables")
    given = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only or MEASURED:
            MEASURED[name](Path(folder), given.records)


if __name__ == "__main__":
    main()
