"""The rows of an extracted shard as columns: one table for each answer and each trunk's features.

A batch of images becomes one `Extracted`, which holds for each file an `Outcome`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from policy.answers import Answers
from policy.columns import lists, numbers, repeated
from policy.rows import ANSWERS_SCHEMA, FEATURES_SCHEMA, NONFINITE, OK
from transforms.careful import Failure, Part
from transforms.collect import Blocks

Reason = tuple[str, str | None]
"""A status, and the error that goes with it."""

Features = dict[str, NDArray[np.float16]]
"""Pooled features [n, features] by trunk."""


@dataclass(frozen=True)
class Outcome:
    """What one file says of n images: arrays [n, ...], where rows with a fault mean nothing.

    The arrays are those of `Answers`, or features; none where all have a fault.
    """

    values: tuple[NDArray[Any], ...]
    faults: Mapping[int, Reason]

    def take(self, rows: NDArray[np.intp]) -> "Outcome":
        """These rows, on their own."""
        own = enumerate(rows.tolist())
        return Outcome(
            tuple(array[rows] for array in self.values),
            {new: self.faults[old] for new, old in own if old in self.faults},
        )

    def good(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Sequence[NDArray[Any]]]:
        """The values without those that have a fault, and which of the n `rows` have them."""
        if not self.faults:
            return rows, self.values
        good = np.setdiff1d(np.arange(len(rows)), list(self.faults))
        return rows[good], [array[good] for array in self.values]


@dataclass(frozen=True)
class Extracted:
    """n records: their keys and labels, and by network and trunk what its file says of them.

    With `rejected` there is nothing of any network, for that reason.
    """

    keys: Sequence[str]
    labels: Sequence[int | None]
    outcomes: Mapping[str, Outcome]
    rejected: Reason | None = None

    def take(self, rows: NDArray[np.intp]) -> "Extracted":
        """These rows, on their own."""
        return Extracted(
            [self.keys[row] for row in rows],
            [self.labels[row] for row in rows],
            {name: outcome.take(rows) for name, outcome in self.outcomes.items()},
            self.rejected,
        )

    def faults(self, file: str) -> Mapping[int, Reason]:
        """Why rows have nothing in a file, by their number."""
        if self.rejected:
            return dict.fromkeys(range(len(self.keys)), self.rejected)
        return self.outcomes[file].faults


def outcomes_of(
    n: int,
    network: str,
    trunks: Sequence[str],
    parts: Sequence[Part[tuple[Answers, Features]]],
    failures: Sequence[Failure],
) -> dict[str, Outcome]:
    """What a network and its trunks gave for a batch of n images, run in parts, or why nothing.

    Features beyond float16 reject the answer too: an exit that looks at them rejects the image.
    """
    failed = {bad.row: (bad.status, bad.error) for bad in failures}
    if not parts:
        return {file: Outcome((), failed) for file in (network, *trunks)}
    found, faults = {}, dict[int, Reason]()
    for trunk in reversed(trunks):
        pooled = _joined(n, [(part, part.value[1][trunk]) for part in parts])
        bad = _nonfinite(np.isfinite(pooled).all(axis=1), f"{trunk} (as float16)")
        found[trunk] = Outcome((pooled,), bad | failed)
        faults |= bad
    classes, probabilities, entropy = (
        _joined(n, [(part, getattr(part.value[0], name)) for part in parts])
        for name in ("classes", "probabilities", "entropy")
    )
    faults |= _nonfinite(np.isfinite(entropy), network)
    return {**found, network: Outcome((classes, probabilities, entropy), faults | failed)}


def _joined(n: int, parts: Sequence[tuple[Part[Any], NDArray[Any]]]) -> NDArray[Any]:
    """The rows of all parts in one array, zeros where no part has them."""
    _, first = parts[0]
    if len(first) == n:
        return first
    whole = np.zeros((n, *first.shape[1:]), first.dtype)
    for part, values in parts:
        whole[part.start : part.stop] = values
    return whole


def _nonfinite(finite: NDArray[np.bool_], what: str) -> dict[int, Reason]:
    reason = (NONFINITE, f"{what} gave NaN or infinity")
    return dict.fromkeys(np.flatnonzero(~finite).tolist(), reason)


def origins(blocks: Blocks[Extracted]) -> dict[str, pa.Array]:
    """The columns that all files of a shard share."""
    place = pa.array(blocks.place_of)
    keys = pa.array([key for block in blocks.blocks for key in block.keys], pa.string())
    labels = pa.array([label for block in blocks.blocks for label in block.labels], pa.int32())
    return {"key": keys.take(place), "label": labels.take(place)}


def unlabelled(blocks: Blocks[Extracted]) -> int:
    """How many records have no label, of those that were not rejected for a reason of their own."""
    return sum(block.labels.count(None) for block in blocks.blocks if not block.rejected)


def answers_table(
    blocks: Blocks[Extracted], network: str, origins: Mapping[str, pa.Array]
) -> pa.Table:
    """A network's answers for a shard in record order."""
    n, given = len(blocks.rows), list(_given(blocks, network))
    columns = {
        name: make([(rows, values[i]) for rows, values in given], n, _kind(ANSWERS_SCHEMA, name))
        for i, (name, make) in enumerate(
            (("classes", lists), ("probabilities", lists), ("entropy", numbers))
        )
    }
    return pa.table({**origins, **columns, **_reasons(blocks, network)}, ANSWERS_SCHEMA)


def features_table(
    blocks: Blocks[Extracted], trunk: str, origins: Mapping[str, pa.Array]
) -> pa.Table:
    """A trunk's features for a shard in record order."""
    given = [(rows, pooled) for rows, (pooled,) in _given(blocks, trunk)]
    features = lists(given, len(blocks.rows), _kind(FEATURES_SCHEMA, "features"))
    columns = {**origins, "features": features, **_reasons(blocks, trunk)}
    return pa.table(columns, FEATURES_SCHEMA)


def _kind(schema: pa.Schema, column: str) -> pa.DataType:
    return schema.field(column).type


def _given(
    blocks: Blocks[Extracted], file: str
) -> Iterator[tuple[NDArray[np.intp], Sequence[NDArray[Any]]]]:
    """The rows of a shard that have something in a file, a block at a time, and what."""
    for rows, block in blocks.each():
        outcome = block.outcomes.get(file)
        if outcome and outcome.values:
            yield outcome.good(rows)


def _reasons(blocks: Blocks[Extracted], file: str) -> dict[str, pa.Array]:
    """The status and error of every row of a file."""
    reasons: list[Reason] = [(OK, None)]
    of = np.zeros(len(blocks.rows), dtype=np.intp)
    for rows, block in blocks.each():
        for row, reason in block.faults(file).items():
            of[rows[row]] = len(reasons)
            reasons.append(reason)
    statuses, errors = zip(*reasons, strict=True)
    return {
        "status": repeated(statuses, of, pa.string()),
        "error": repeated(errors, of, pa.string()),
    }
