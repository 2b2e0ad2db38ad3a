"""Reading the table: every answer for the same images, aligned, and the graph that made them."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.costs import Costs
from policy.errors import InputError
from policy.files import damaged, filesystem_of
from policy.graph import StageGraph
from policy.losses import Metric, Objective
from policy.problem import Problem
from policy.rows import ANSWERS_SCHEMA, OK
from policy.table_manifest import (
    TableManifest,
    TableNetwork,
    answers_path,
    fingerprints_of,
    read_manifest,
)

_BEST = 5
"""Classes of every answer that are read from a table of many: what top-5 needs."""

_TRIES = 3
_FEW = 100
"""Up to so many classes, all are read where all are kept: methods may look at each."""

IMPORTED = "imported:"
"""How the fingerprint of answers starts that were imported; the answer's name follows."""


@plain_dataclass(frozen=True)
class TableShard:
    """A shard of a table: how many records it has, and what it was made from, if that is known."""

    records: int
    made_from: str


@plain_dataclass(frozen=True)
class Table:
    """n labelled images: keys [n], labels [n] int32, and each answer for them.

    `rejected` counts the rows left out, by status; unlabelled rows count as "unlabelled". `places`
    [n] are the numbers of the rows' records, counting all of all shards in the manifest's order;
    None for a table that no folder holds. `shards` by name, in that order.
    """

    graph: StageGraph
    keys: tuple[str, ...]
    labels: NDArray[np.int32]
    outputs: dict[str, Answers]
    class_names: tuple[str, ...]
    networks: dict[str, TableNetwork]
    rejected: dict[str, int]
    places: NDArray[np.intp] | None = None
    shards: Mapping[str, TableShard] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> "Table":
        """The same table with only these rows."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            labels=self.labels[rows],
            outputs={name: answers.take(rows) for name, answers in self.outputs.items()},
            places=None if self.places is None else self.places[rows],
        )

    def at_costs(self, costs: Costs) -> "Table":
        """The same table priced otherwise.

        Raises InputError if the costs lack an exit, or are those of other networks of the same
        names: with other exits, say, where a stage of the same name is another part of the network.
        """
        differs = costs.difference("the table has", fingerprints_of(self.networks))
        if differs:
            raise InputError(
                f"{differs} Calibrate with the networks file that the table was extracted with."
            )
        own = {exit_of(stage) for network in self.networks.values() for stage in network.features}
        for stage in self.graph.stages:
            if stage.name in own and stage.name not in costs.costs:
                raise InputError(
                    f"no cost given for exit {stage.name!r}; the costs were measured before exits "
                    "were priced, or without this one. Run `adalabel calibrate` again with the "
                    "networks file that the table was extracted with."
                )
        return replace(self, graph=self.graph.with_costs(costs.costs, costs.unit))

    def of_shards(self, names: Collection[str]) -> NDArray[np.bool_]:
        """[n], whether each row's record is of one of these shards."""
        if self.places is None:
            raise ValueError("a table that no folder holds has no shards")
        ends = np.cumsum([shard.records for shard in self.shards.values()])
        wanted = np.array([name in names for name in self.shards])
        found: NDArray[np.bool_] = wanted[np.searchsorted(ends, self.places, side="right")]
        return found

    @property
    def k(self) -> int:
        """How many of the best classes every answer holds at least."""
        widths = [int(answers.classes.shape[1]) for answers in self.outputs.values()]
        return min(widths)

    def problem(self, metric: Metric, objective: Objective, seed: int = 0) -> Problem:
        """What a fitting method is given."""
        return Problem(self.graph, self.keys, self.labels, self.outputs, metric, objective, seed)

    @property
    def digest(self) -> str:
        """Of keys, labels, answers and fingerprints: what a policy was fitted on."""
        content = hashlib.sha256("\n".join(self.keys).encode())
        content.update(self.labels.tobytes())
        for answers in self.outputs.values():
            content.update(np.ascontiguousarray(answers.classes).tobytes())
            content.update(np.ascontiguousarray(answers.probabilities).tobytes())
        content.update(repr(sorted(self.networks.items())).encode())
        return content.hexdigest()[:16]


def exit_of(stage: str) -> str:
    """The name of the exit that answers from the pooled features of this stage."""
    return f"{stage}.exit"


def read_table(table: str, k: int | None = None) -> Table:
    """Read the k best classes of every answer of a table, leaving rejected rows out.

    Without a `k`, all classes of up to a hundred, the five best of more. Raises InputError where
    the answers do not hold the same keys in the same order.

    A table that is replaced while it is read is read again: no file changes its content or place
    before the manifest does, so all of them belong to a manifest that stands before and after.
    """
    for _ in range(_TRIES):
        manifest = read_manifest(table)
        try:
            found = _read(table, manifest, k)
        except InputError:
            if read_manifest(table) == manifest:
                raise
        else:
            if read_manifest(table) == manifest:
                return found
    raise InputError(f"{table}: is being replaced again and again; read it when that is over")


def _read(table: str, manifest: TableManifest, k: int | None) -> Table:
    if k is None:
        all_of_few = manifest.topk is None and len(manifest.class_names) <= _FEW
        k = max(len(manifest.class_names), _BEST) if all_of_few else _BEST
    names = manifest.graph.answers
    columns = {
        name: _read_answer(
            [f"{table}/{manifest.where(answers_path(name, shard))}" for shard in manifest.shards], k
        )
        for name in names
    }
    keys = columns[names[0]]["key"]
    for name in names:
        if not columns[name]["key"].equals(keys):
            raise InputError(
                f"{table}: answers {names[0]!r} and {name!r} hold different keys; "
                "extract both again over the same shards"
            )
    good, rejected = _good_rows([columns[name] for name in names])
    if not good.any():
        raise InputError(f"{table}: none of {len(good)} rows is labelled and good: {rejected}")
    return Table(
        graph=manifest.graph,
        keys=tuple(keys.filter(pa.array(good)).to_pylist()),
        labels=columns[names[0]]["label"].filter(pa.array(good)).to_numpy().astype(np.int32),
        outputs={name: _answers(columns[name], good) for name in names},
        class_names=manifest.class_names,
        networks=manifest.networks,
        rejected=rejected,
        places=np.flatnonzero(good),
        shards={
            name: TableShard(records, manifest.inputs.get(name, ""))
            for name, records in manifest.shards.items()
        },
    )


def _read_answer(paths: Sequence[str], k: int) -> pa.Table:
    tables = []
    for path in paths:
        filesystem, local = filesystem_of(path)
        try:
            whole = pq.read_table(local, filesystem=filesystem, page_checksum_verification=True)
        except (
            OSError,
            ValueError,
            pa.ArrowException,
        ) as error:  # damaged text: UnicodeDecodeError
            raise damaged(path, error) from error
        if not whole.schema.equals(ANSWERS_SCHEMA):
            raise InputError(f"{path}: not a file of answers, or damaged. Extract it again.")
        widths = set[int]()
        for column in ("classes", "probabilities"):
            index = whole.schema.get_field_index(column)
            whole = whole.set_column(index, column, pc.list_slice(whole[column], 0, k))
            widths |= set(pc.unique(pc.list_value_length(whole[column]).drop_null()).to_pylist())
        if len(widths) > 1:  # no checksum covers how many numbers a page of Parquet says it has
            raise InputError(
                f"{path}: rows with different numbers of classes or probabilities "
                f"({', '.join(map(str, sorted(widths)))}), or damaged. Extract it again."
            )
        tables.append(whole.replace_schema_metadata(None))
    return pa.concat_tables(tables or [ANSWERS_SCHEMA.empty_table()])


def _good_rows(columns: Iterable[pa.Table]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Rows that every answer has and that are labelled; the others counted by first reason."""
    reason: NDArray[Any] | None = None
    for table in columns:
        status = table["status"].to_numpy(zero_copy_only=False)
        reason = status if reason is None else np.where(reason == OK, status, reason)
        unlabelled = table["label"].is_null().to_numpy(zero_copy_only=False)
        reason = np.where((reason == OK) & unlabelled, "unlabelled", reason)
    if reason is None:
        raise ValueError("a table without answers")
    names, counts = np.unique(reason[reason != OK].astype(str), return_counts=True)
    return reason == OK, dict(zip(names.tolist(), counts.tolist(), strict=True))


def _answers(table: pa.Table, good: NDArray[np.bool_]) -> Answers:
    rows = table.filter(pa.array(good))
    parts = [
        Answers(
            classes=chunk["classes"].flatten().to_numpy().reshape(len(chunk), -1),
            probabilities=chunk["probabilities"].flatten().to_numpy().reshape(len(chunk), -1),
            entropy=chunk["entropy"].to_numpy(),
        )
        for chunk in rows.to_batches()
    ]
    return concatenate(parts)
