"""Labels as the sides write them, and whether they are what they should be."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

TOP = 5
MOST_DIFFERENT = 0.01
"""Share of the images that two sides may label differently that do the same work."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("classes", pa.list_(pa.int32())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)


def best(logits: torch.Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best classes [n, 5] and their probabilities."""
    found = logits.softmax(1).topk(TOP)
    return found.indices.to(torch.int32).numpy(), found.values.numpy()


def write_labels(
    path: Path,
    keys: Sequence[str],
    classes: Sequence[NDArray[np.int32]],
    probabilities: Sequence[NDArray[np.float32]],
) -> None:
    """One file, from batches of the best classes and probabilities."""
    every, sure = np.concatenate(classes), np.concatenate(probabilities)
    columns = {
        "key": list(keys),
        "label": every[:, 0],
        "classes": list(every),
        "probabilities": list(sure),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)


def read_labels(folder: Path) -> dict[str, int]:
    """Key -> class, from all Parquet files of a folder; refuses a key that comes twice."""
    found: dict[str, int] = {}
    rows = 0
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["key", "label"])
        rows += len(table)
        found.update(
            zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True),
        )
    if rows != len(found):
        raise ValueError(f"{folder}: {rows} rows for {len(found)} images; wanted one for each")
    return found


def accuracy(labels: Mapping[str, int], truth: Mapping[str, int], side: str) -> float:
    """Share of the images whose best class is right; refuses labels of other images."""
    if labels.keys() != truth.keys():
        missing = sorted(truth.keys() - labels.keys())[:3]
        extra = sorted(labels.keys() - truth.keys())[:3]
        raise ValueError(
            f"{side}: labelled {len(labels)} images, wanted {len(truth)}; for one, missing "
            f"{missing}, unknown {extra}"
        )
    return sum(labels[key] == truth[key] for key in truth) / len(truth)


def differing(ours: Mapping[str, int], theirs: Mapping[str, int]) -> float:
    """Share of the images with another label."""
    return sum(ours[key] != theirs[key] for key in ours) / len(ours)


def check_agreement(sides: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse sides, by name, that were to do the same work and did not give the same labels.

    Each is compared with the first: a tie in rounding may differ, a different input may not.
    """
    first, *others = sides
    for other in others:
        share = differing(sides[first], sides[other])
        if share > MOST_DIFFERENT:
            raise ValueError(
                f"{other!r} and {first!r} differ in {share:.1%} of the labels; wanted at most "
                f"{MOST_DIFFERENT:.0%}: they do not do the same work, so their times say nothing"
            )
