"""Small tables with features on disk, as `adalabel extract` leaves them, for the tests of exits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers, answers_from_logits
from policy.graph import Stage, StageGraph
from policy.rows import ANSWERS_SCHEMA, FEATURES_SCHEMA, OK, parquet_bytes
from policy.schema import to_json
from policy.table_manifest import MANIFEST, TableManifest, TableNetwork, answers_path, features_path

CLASSES = ("cat", "dog", "newt", "yak")
GRAPH = StageGraph(
    (
        Stage("decode", 0.0),
        Stage("small.block1", 1.0, ("decode",)),
        Stage("small.block2", 1.0, ("small.block1",)),
        Stage("small", 1.0, ("small.block2",), answers=True),
        Stage("big.block1", 4.0, ("decode",)),
        Stage("big", 4.0, ("big.block1",), answers=True),
    ),
    unit="gmac",
)
NETWORKS = {
    "small": TableNetwork("f1", ("small",), ("small.block1", "small.block2")),
    "big": TableNetwork("f2", ("big",), ("big.block1",)),
}
WIDTHS = {"small.block1": 3, "small.block2": 5, "big.block1": 8}
SHARDS = {"train/a": 12, "b": 9, "c": 15}
BAD = {("train/a", 4), ("b", 0), ("c", 14)}
"""Records (shard, number) that could not be decoded."""
Row = dict[str, Any]
Change = Callable[[list[Row], str, str], list[Row]]


def as_it_is(rows: list[Row], stage: str, shard: str) -> list[Row]:
    del stage, shard
    return rows


def write(
    folder: Path,
    change: Change = as_it_is,
    shards: Mapping[str, int] = SHARDS,
    classes: int = len(CLASSES),
) -> dict[str, NDArray[np.float16]]:
    """Write a table; the features by stage of its good rows, in order, but for what `change` does.

    `change(rows, stage, shard)` gives the rows to write of one file of features. The features of a
    class scatter around its own centre.
    """
    rng = np.random.default_rng(0)
    centres = {stage: rng.normal(size=(classes, width)) for stage, width in WIDTHS.items()}
    kept: dict[str, list[NDArray[np.float16]]] = {stage: [] for stage in WIDTHS}
    for shard, n in shards.items():
        labels = rng.integers(0, classes, n)
        base = [_base(shard, number, int(labels[number])) for number in range(n)]
        good = np.array([row["status"] == OK for row in base])
        for network in NETWORKS:
            said = answers_from_logits(rng.normal(size=(n, classes)), None)
            rows = [row | _said(said, number) for number, row in enumerate(base)]
            _save(folder / answers_path(network, shard), rows, ANSWERS_SCHEMA)
        for stage, width in WIDTHS.items():
            noise = 0.5 * rng.normal(size=(n, width))
            features = (centres[stage][labels] + noise).astype(np.float16)
            kept[stage].append(features[good])
            rows = [{**row, "features": x} for row, x in zip(base, features, strict=True)]
            rows = [row if row["status"] == OK else {**row, "features": None} for row in rows]
            _save(folder / features_path(stage, shard), change(rows, stage, shard), FEATURES_SCHEMA)
    names = CLASSES if classes == len(CLASSES) else tuple(f"class {i}" for i in range(classes))
    made = TableManifest(1, GRAPH, names, None, NETWORKS, dict(shards))
    (folder / MANIFEST).write_text(to_json(made))
    return {stage: np.concatenate(parts) for stage, parts in kept.items()}


def _base(shard: str, number: int, label: int) -> Row:
    row: Row = {"key": f"{shard}/{number:05d}", "label": label, "status": OK, "error": None}
    return row | ({"label": None, "status": "decode"} if (shard, number) in BAD else {})


def _said(answers: Answers, number: int) -> Row:
    return {
        "classes": answers.classes[number],
        "probabilities": answers.probabilities[number],
        "entropy": answers.entropy[number],
    }


def _save(path: Path, rows: list[Row], schema: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet_bytes(rows, schema, {}))
