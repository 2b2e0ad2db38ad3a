"""The rows of a labelled shard as columns, and what its statistics count in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from policy.answers import Answers
from policy.columns import lists, numbers, repeated
from policy.rows import LABELS_SCHEMA, OK, account, counts
from transforms.collect import Blocks
from transforms.routed import Compared, Trail


@dataclass(frozen=True)
class Labels:
    """n records with the same trail, cost and status; `keys` [n] tell them apart.

    `answers` [n] are there if the status is OK, `trail` and `cost` if the router had the images.
    `audits` has those of the images that were audited, by their number.
    """

    keys: Sequence[str]
    trail: Trail | None = None
    cost: float | None = None
    answers: Answers | None = None
    status: str = OK
    error: str | None = None
    audits: Mapping[int, Compared] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> "Labels":
        """These rows, on their own."""
        numbered = rows.tolist()
        return Labels(
            [self.keys[row] for row in numbered],
            self.trail,
            self.cost,
            self.answers.take(rows) if self.answers else None,
            self.status,
            self.error,
            {new: self.audits[old] for new, old in enumerate(numbered) if old in self.audits},
        )


Audits = Sequence[tuple[int, Compared]]
"""What the audits of a shard found, by the number of the record, in order."""


def audits_of(blocks: Blocks[Labels]) -> Audits:
    """The audits of a shard."""
    found = [
        (int(rows[number]), compared)
        for rows, block in blocks.each()
        for number, compared in block.audits.items()
    ]
    return sorted(found, key=lambda audit: audit[0])


def label_table(blocks: Blocks[Labels], audits: Audits, names: pa.StringArray) -> pa.Table:
    """The rows of a shard in record order; `names` are those of all classes."""
    n, of, every = len(blocks.rows), blocks.block_of, blocks.blocks
    given = [(rows, block.answers) for rows, block in blocks.each() if block.answers is not None]
    label = numbers([(rows, answers.classes[:, 0]) for rows, answers in given], n, pa.int32())
    done = [(row, compared) for row, compared in audits if compared.full is not None]
    audited = np.array([row for row, _ in done], dtype=np.intp)
    full = np.array([compared.full for _, compared in done], dtype=np.int32)
    wrong = np.array([compared.disagrees for _, compared in done], dtype=bool)
    keys = pa.array([key for block in every for key in block.keys], pa.string())
    answer = [block.trail[-1] if block.trail and block.answers else None for block in every]
    columns = {
        "key": keys.take(pa.array(blocks.place_of)),
        "label": label,
        "name": names.take(label),
        "classes": lists([(rows, a.classes) for rows, a in given], n, _kind("classes")),
        "probabilities": lists(
            [(rows, a.probabilities) for rows, a in given], n, _kind("probabilities")
        ),
        "answer": repeated(answer, of, pa.string()),
        "trail": repeated([block.trail for block in every], of, _kind("trail")),
        "cost": repeated([block.cost for block in every], of, pa.float64()),
        "audit": numbers([(audited, full)], n, pa.int32()),
        "disagrees": numbers([(audited, wrong)], n, pa.bool_()),
        "status": repeated([block.status for block in every], of, pa.string()),
        "error": repeated([block.error for block in every], of, pa.string()),
    }
    return pa.Table.from_arrays(
        [columns[name] for name in LABELS_SCHEMA.names], schema=LABELS_SCHEMA
    )


def _kind(column: str) -> pa.DataType:
    return LABELS_SCHEMA.field(column).type


def statistics_of(shard: str, table: pa.Table, audits: Audits) -> dict[str, Any]:
    """Counts of a shard's rows by status, answer and class, and what they cost in total.

    `audited` counts the images compared with the full network, `audit_failed` those that could not
    be, and `audit_cost` is what both cost beyond `cost`.
    """
    return {
        "shard": shard,
        **account(table),
        "exits": counts(table["answer"]),
        "got": counts(pc.list_flatten(table["trail"])),
        "cost": sum(table["cost"].drop_null().to_numpy().tolist(), 0.0),
        "predicted": {str(label): n for label, n in counts(table["label"]).items()},
        "audited": sum(compared.full is not None for _, compared in audits),
        "disagreed": pc.sum(table["disagrees"], min_count=0).as_py(),
        "audit_failed": sum(compared.full is None for _, compared in audits),
        "audit_cost": sum((compared.cost for _, compared in audits), 0.0),
    }
