"""A small corpus, networks and the commands, on this machine and in a bucket."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tiny
import tiny_tfrecord

from transforms import bucket, bucket_files

ROOT = Path(__file__).parents[2]
RECORDS = 60
"""Of each shard; one of them is no image."""

Decisions = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Place:
    """Where the corpus, the networks and the results lie: a folder or a bucket, no / behind."""

    root: str

    def options(self, command: str, output: str, *more: str) -> list[str]:
        """The words of `extract` or `classify` that write to this output."""
        words = [command, "--networks", f"{self.root}/networks/networks.toml"]
        words += ["--input", f"{self.root}/shards/*.tar", f"{self.root}/shards/[rt]*"]
        words += ["--output", f"{self.root}/{output}", "--batch-size", "8", "--threads", "1"]
        if command == "classify":
            words += ["--policy", f"{self.root}/policy"]
        return [*words, *more]

    def fit(self) -> list[str]:
        words = ["fit", "--table", f"{self.root}/table", "--policy", f"{self.root}/policy"]
        return [*words, "--max-loss", "0.2", "--test-share", "0", "--choose-share", "0.5"]


def make(folder: Path) -> Place:
    """Networks, a tar, a Parquet and a TFRecord shard of labelled images, below a folder."""
    rng = np.random.default_rng(0)
    tiny.write_networks(folder / "networks")
    images = [tiny.image_bytes(rng) for _ in range(3 * RECORDS)]
    for number in range(3):
        images[number * RECORDS + 7] = b"no image"
    labels = [number % tiny.CLASSES for number in range(3 * RECORDS)]
    first, second, third = (slice(at * RECORDS, (at + 1) * RECORDS) for at in range(3))
    members = []
    for number, (image, label) in enumerate(zip(images[first], labels[first], strict=True)):
        members += [(f"{number:04d}.cls", str(label).encode()), (f"{number:04d}.png", image)]
    tiny.write_tar(folder / "shards" / "a [1].tar", members)
    columns = {"image": images[second], "label": labels[second]}
    tiny.write_parquet(folder / "shards" / "rows.parquet", columns)
    rows = [
        {"image/encoded": [image], "image/class/label": [label]}
        for image, label in zip(images[third], labels[third], strict=True)
    ]
    (folder / "shards" / "tf.tfrecord").write_bytes(tiny_tfrecord.tfrecord_bytes(rows))
    return Place(str(folder))


def uploaded(place: Place, shelf: str, folders: Iterable[str]) -> Place:
    """The same below a bucket."""
    for folder in folders:
        for path in sorted((Path(place.root) / folder).rglob("*")):
            if path.is_file():
                name = path.relative_to(place.root)
                bucket.replace(f"{shelf}/{name}", path.read_bytes())
    return Place(shelf)


def started(words: Iterable[str]) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "launch.cli", *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and all that it said."""
    out, error = process.communicate(timeout=300)
    return process.returncode, out + error


def run(words: Iterable[str]) -> str:
    """What a command says that must succeed."""
    code, said = ended(started(words))
    assert code == 0, said
    return said


def files_below(root: str) -> dict[str, bytes]:
    """All files below a folder or a bucket's, by name."""
    if not root.startswith(bucket.SCHEME):
        paths = [path for path in Path(root).rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in paths}
    found = bucket_files.matched(f"{root}/**")
    contents = {file.path: bucket.read(file.path) for file in found}
    return {path.removeprefix(f"{root}/"): read[0] for path, read in contents.items() if read}


def policy_of(root: str) -> dict[str, Any]:
    """The policy below a folder or a bucket's, without what says which shards it was fitted on.

    Those have other paths and generations in a bucket than on a disk.
    """
    found: dict[str, Any] = json.loads(files_below(f"{root}/policy")["policy.json"])
    assert len(found["evidence"].pop("fitted_on")["shards"]) == 3
    return found


def decisions(root: str) -> Decisions:
    """What must be the same wherever the labels lie, however often a run was killed."""
    found = {}
    for name, content in files_below(root).items():
        if name.endswith(".parquet"):
            rows = pq.read_table(_as_file(content)).to_pylist()
            found[name] = [(r["key"], r["label"], r["trail"], r["status"]) for r in rows]
    return found


def _as_file(content: bytes) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - here alone

    return pa.BufferReader(content)
