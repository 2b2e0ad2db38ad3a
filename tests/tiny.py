"""The smallest graph, networks, images and shards with every shape in them, for all tests."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiny_networks
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from policy.answers import Answers, answers_from_logits
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.heads import Head
from policy.means import Mean
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule
from transforms.shards import Shard

CLASSES = 4
FOLDER = Path(__file__).parent

GRAPH = StageGraph(
    (
        Stage("decode", 1.0),
        Stage("small.input", 0.5, ("decode",)),
        Stage("small.block1", 1.0, ("small.input",)),
        Stage("small.block1.exit", 0.25, ("small.block1",), answers=True),
        Stage("small", 2.0, ("small.block1",), answers=True),
        Stage("big.input", 0.5, ("decode",)),
        Stage("big", 8.0, ("big.input",), answers=True),
    ),
    unit="ms",
)
"""An early exit, the network it belongs to, and a second network that shares only the decoding."""

POLICY = Policy(
    GRAPH,
    start="small.block1.exit",
    rules=(
        Rule(
            "small.block1.exit",
            (STOP, "small", "big"),
            weights=((1.0,), (0.0,), (-1.0,)),
            bias=(-0.6, 0.0, 0.4),
            features=(Feature("small.block1.exit", "max_probability"),),
        ),
        Rule(
            "small",
            (STOP, "big"),
            weights=((0.0,), (1.0,)),
            bias=(1.0, 0.0),
            features=(Feature("small", "entropy"),),
        ),
    ),
)
"""Three ways on from the exit, one of them a jump over `small`; two ways on from `small`."""

_EXIT = "small.block1.exit"

EVERYTHING = Policy(
    GRAPH,
    start=_EXIT,
    rules=(
        Rule(
            _EXIT,
            (STOP, "small", "big"),
            weights=(
                (1.0, 0.5, -1.0, -0.5, -0.2, 0.3, 0.0, 0.4, 0.5),
                (0.0, 0.0, 0.2, 0.0, 0.0, -0.3, 0.0, 0.0, -0.4),
                (-1.0, 0.0, 1.0, 0.5, 0.1, 0.0, 0.5, -0.4, 0.0),
            ),
            bias=(-0.1, 0.2, 0.0),
            features=(
                Feature(_EXIT, "max_probability"),
                Feature(_EXIT, "margin"),
                Feature(_EXIT, "entropy"),
                Feature(_EXIT, "tail", index=2),
                Feature(_EXIT, "log_tail", index=1),
                Feature(_EXIT, "of_class", values=(0.5, -0.5, 0.25, 0.0)),
                Feature(_EXIT, "vote"),
                Feature(_EXIT, "probability", index=2),
                Feature(_EXIT, "class_probability", index=3),
            ),
        ),
        Rule(
            "small",
            (STOP, "big"),
            weights=(
                (0.5, -1.0, -0.3, 0.6, 0.4, 0.5, 0.3, -0.5, 0.2, 0.3),
                (0.0, 0.2, 0.3, 0.0, -0.4, 0.0, -0.3, 0.5, 0.0, 0.0),
            ),
            bias=(0.3, 0.9),
            features=(
                Feature("small", "max_probability"),
                Feature("small", "entropy", mean=True),
                Feature("small", "log_tail", index=1, mean=True),
                Feature("small", "margin", mean=True),
                Feature("small", "agreement", other=_EXIT),
                Feature("small", "overlap", index=2, other=_EXIT),
                Feature("small", "support", index=3, other=_EXIT),
                Feature(_EXIT, "score"),
                Feature("small", "vote"),
                Feature(_EXIT, "probability", index=1),
            ),
        ),
    ),
    mean=Mean((("small", 2.0), ("big", 3.0)), k=3),
)
"""POLICY's ways with every kind of feature in its rules, and labels from the mean of the trail."""

TOML = """
classes = "classes.txt"
import_path = ["{folder}"]

[[network]]
name    = "small"
model   = "tiny_networks:branchy"
weights = "small.safetensors"
input   = {{ resize = [16, 16], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
exits   = ["block1"]

[[network]]
name    = "big"
model   = "tiny_networks:branchy"
kwargs  = {{ width = 8 }}
weights = "big.safetensors"
input   = {{ resize = 28, crop = 24, mean = [0.4, 0.4, 0.4], std = [0.2, 0.2, 0.2] }}
"""


def outputs(rng: np.random.Generator, n: int, k: int | None = None) -> dict[str, Answers]:
    """Random answers of GRAPH for n images of `labels`; dearer answers are better."""
    right = labels(n)
    found = {}
    for name, strength in (("small.block1.exit", 0.8), ("small", 1.5), ("big", 3.0)):
        logits = rng.normal(size=(n, CLASSES)).astype(np.float32)
        logits[np.arange(n), right] += strength
        found[name] = answers_from_logits(logits, k)
    return found


def labels(n: int) -> NDArray[np.int32]:
    """The right class of each of n images: 0, 1, 2, 3, 0, 1, ..."""
    return (np.arange(n) % CLASSES).astype(np.int32)


def problem(seed: int, n: int, k: int | None = None, unit: str = "usd") -> Problem:
    """n images with random answers of GRAPH; in usd, decisions are free (see recursion)."""
    graph = replace(GRAPH, unit=unit)
    keys = [f"s/{number}" for number in range(n)]
    return Problem(graph, keys, labels(n), outputs(np.random.default_rng(seed), n, k))


def balanced(policy: Policy, outputs: Mapping[str, Answers]) -> Policy:
    """The same policy with biases for which each action is taken about equally often."""
    for number, rule in enumerate(policy.rules):
        trail = next(trail for trail in policy.trails if trail[-1] == rule.answer)
        scores = rule.scores(policy.seen({answer: outputs[answer] for answer in trail}))
        bias, step = np.array(rule.bias), 0.1 * scores.std()
        for _ in range(200):
            taken = np.bincount(scores.argmax(axis=1), minlength=len(bias)) / len(scores)
            shift = step * (1 / len(bias) - taken)
            scores, bias = scores + shift, bias + shift
        rules = list(policy.rules)
        rules[number] = replace(rule, bias=tuple(bias.tolist()))
        policy = replace(policy, rules=tuple(rules))
    return policy


def image_bytes(
    rng: np.random.Generator, size: tuple[int, int] = (20, 24), kind: str = "PNG"
) -> bytes:
    """A random RGB image of this height and width."""
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar of these (name, content) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(name: str, path: Path) -> Shard:
    """A shard of this name and path, as matching would find it."""
    found = path.stat() if path.exists() else None
    return Shard(name, str(path), found.st_size if found else 0, found.st_mtime if found else 0.0)


def image_members(rng: np.random.Generator, n: int, first: int = 0) -> list[tuple[str, bytes]]:
    """WebDataset members of n labelled images, with keys 0000, 0001, ..."""
    members = []
    for number in range(first, first + n):
        members.append((f"{number:04d}.cls", str(number % CLASSES).encode()))
        members.append((f"{number:04d}.png", image_bytes(rng)))
    return members


def write_parquet(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """A Parquet file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, write_page_checksum=True)
    return path


def write_networks(folder: Path, text: str = TOML) -> Path:
    """A networks file with its weights and its class list; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("cat\ndog\nnewt\nyak\n")
    for number, (name, width) in enumerate((("small", 4), ("big", 8))):
        torch.manual_seed(number)
        network = tiny_networks.branchy(width=width)
        for parameter in network.parameters():
            parameter.data.mul_(3)  # far from uniform, so that confidences differ
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    path = folder / "networks.toml"
    path.write_text(text.format(folder=FOLDER))
    return path


def head(rng: np.random.Generator, features: int = 4) -> Head:
    """A random linear head on the pooled features of small.block1."""
    weight = rng.normal(size=(CLASSES, features)).astype(np.float32) * 4
    return Head(weight, np.zeros(CLASSES, dtype=np.float32))
