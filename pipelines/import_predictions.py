"""adalabel import: make a table of predictions somebody already has, without running a network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.options import CommandOptions
from pipelines.output import Session, opened
from pipelines.table import TABLE, files, merged
from policy.answers import Answers, answers_from_probabilities
from policy.costs import Costs, read_costs
from policy.errors import InputError
from policy.files import read_bytes
from policy.graph import Stage, StageGraph
from policy.manifest import written
from policy.rows import ANSWERS_SCHEMA, OK, parquet_bytes
from policy.table import IMPORTED
from policy.table_manifest import TableManifest, TableNetwork, answers_path
from transforms.files import open_file

SHARD = "imported"

_SCHEMA = pa.schema([ANSWERS_SCHEMA.field(i) for i in range(4)])


@dataclass(frozen=True, kw_only=True)
class ImportOptions(CommandOptions):
    """Make a table of recorded predictions, or add them to one that has the same keys.

    Each file is Parquet with columns key (string), label (int), classes (list of int) and
    probabilities (list of float), the same number of classes in every row.
    """

    table: str
    """The table's folder."""
    answer: tuple[str, ...]
    """NAME=FILE.parquet for every answer to import."""
    costs: str
    """Costs per image: {"unit": "ms", "costs": {"NAME": 1.06, ...}}."""


@dataclass(frozen=True)
class ImportReceipt:
    """What the table now holds."""

    table: str
    answers: tuple[str, ...]
    records: int
    unit: str

    def text(self) -> str:
        """For people."""
        held = ", ".join(self.answers)
        return f"{self.table}: {self.records} records, answers {held}, costs in {self.unit}"


@dataclass(frozen=True)
class _Predictions:
    """One file's rows by key: its row number, and all its answers."""

    path: str
    row: Mapping[str, int]
    labels: Sequence[int | None]
    answers: Answers


Rows = list[dict[str, Any]]


def run(options: ImportOptions) -> ImportReceipt:
    """Check that everything speaks of the same images, then write the files and the manifest."""
    costs = read_costs(options.costs)
    found = {name: _read(path) for name, path in _named(options.answer).items()}
    with opened(options.table, "retry-failed", TABLE, None) as session:
        manifest = _imported(options, found, costs, session)
    graph = manifest.graph
    return ImportReceipt(options.table, graph.answers, sum(manifest.shards.values()), graph.unit)


def _imported(
    options: ImportOptions,
    found: Mapping[str, _Predictions],
    costs: Costs,
    session: Session[TableManifest],
) -> TableManifest:
    known = session.known
    _check_names(found, known)
    shards = _known_rows(options.table, known) if known else _first_rows(found)
    manifest = _manifest(known, found, costs, {shard: len(rows) for shard, rows in shards.items()})
    k = manifest.topk or None
    contents = {
        answers_path(name, shard): parquet_bytes(
            _filled(rows, predictions, k),
            ANSWERS_SCHEMA,
            {"fingerprint": _fingerprint(name)},
        )
        for name, predictions in found.items()
        for shard, rows in shards.items()
    }
    for path, content in contents.items():  # only once every row of every file is known to be good
        session.output.replace(path, content)
    sums = {path: written(content) for path, content in contents.items()}
    manifest = replace(manifest, files=manifest.files | sums)
    session.publish(manifest, contents.keys())
    return manifest


def _fingerprint(name: str) -> str:
    """Imported answers of one name come from one network; only the user can know that they do."""
    return IMPORTED + name


def _check_names(found: Iterable[str], known: TableManifest | None) -> None:
    """Refuse to write over what was extracted."""
    for name in found:
        network = known.networks.get(name) if known else None
        imported = network is not None and network.fingerprint == _fingerprint(name)
        if known and name in known.graph.stage and not imported:
            raise InputError(
                f"--answer {name}=...: the table has a stage {name!r} that was extracted; import "
                "under another name"
            )


def _named(answers: Sequence[str]) -> dict[str, str]:
    if not answers:
        raise InputError("--answer: nothing to import; wanted NAME=FILE.parquet")
    named = {}
    for text in answers:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or "/" in name or name in named:
            raise InputError(f"--answer {text}: wanted NAME=FILE.parquet, each NAME once")
        named[name] = path
    return named


def _read(path: str) -> _Predictions:
    try:
        content = read_bytes(path, "the predictions")
        if "trail" in pq.read_schema(pa.BufferReader(content)).names:
            raise InputError(
                f"{path}: these are labels that adalabel made: their `label` is a prediction, not "
                "the truth. Evaluate the policy on an extracted table instead."
            )
        found = pq.read_table(pa.BufferReader(content), columns=list(_SCHEMA.names))
        table = found.select(_SCHEMA.names).cast(_SCHEMA)
    except (OSError, pa.ArrowException, ValueError) as error:
        wanted = ", ".join(f"{field.name} ({field.type})" for field in _SCHEMA)
        raise InputError(
            f"{path}: cannot be read as Parquet with columns {wanted}: {error}"
        ) from error
    keys = table["key"].to_pylist()
    row = {key: number for number, key in enumerate(keys)}
    if len(row) < len(keys):
        raise InputError(f"{path}: {len(keys) - len(row)} keys are repeated; each once")
    classes, probabilities = _matrix(table["classes"], path), _matrix(table["probabilities"], path)
    if classes.shape != probabilities.shape or (classes < 0).any():
        raise InputError(
            f"{path}: classes {classes.shape} and probabilities {probabilities.shape} must have "
            "one shape, and classes must be 0 or more"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError(f"{path}: probabilities must lie in [0, 1]")
    labels = table["label"].to_pylist()
    if min((label for label in labels if label is not None), default=0) < 0:
        raise InputError(f"{path}: label {min(filter(None, labels))}; wanted class indices from 0")
    return _Predictions(
        path=path,
        row=row,
        labels=labels,
        answers=answers_from_probabilities(classes, probabilities),
    )


def _matrix(column: pa.ChunkedArray, path: str) -> Any:  # noqa: ANN401 - of either number type
    """[n, k] of a column of lists that all have the same length."""
    lists = column.combine_chunks()
    lengths = set(lists.value_lengths().to_pylist())
    flat = lists.flatten()
    if len(lengths) != 1 or None in lengths or 0 in lengths or flat.null_count:
        raise InputError(
            f"{path}: rows hold {sorted(map(str, lengths))} classes and {flat.null_count} nulls; "
            "wanted the same number in every row, and none null"
        )
    return flat.to_numpy().reshape(-1, lengths.pop())


def _first_rows(found: Mapping[str, _Predictions]) -> dict[str, Rows]:
    """One shard with the images of the first file, in its order."""
    first = next(iter(found.values()))
    rows = zip(first.row, first.labels, strict=True)
    return {SHARD: [{"key": k, "label": y, "status": OK, "error": None} for k, y in rows]}


def _known_rows(table: str, known: TableManifest) -> dict[str, Rows]:
    """Keys, labels and statuses of each shard that the table already has."""
    network = next(iter(known.networks))
    shards = {}
    for shard in known.shards:
        path = f"{table}/{files(known, network, shard)[0]}"
        with open_file(path) as file:
            columns = ["key", "label", "status", "error"]
            shards[shard] = pq.read_table(file, columns=columns).to_pylist()
    return shards


def _filled(rows: Rows, predictions: _Predictions, k: int | None) -> Rows:
    """The rows with the k best of this file's answers; rejected rows stay without."""
    missing = [r["key"] for r in rows if r["status"] == OK and r["key"] not in predictions.row]
    if missing:
        raise InputError(
            f"{predictions.path}: lacks {len(missing)} of {len(rows)} keys, {missing[0]!r} first; "
            "all answers of a table must be for the same images"
        )
    answers, filled = predictions.answers.top(k), []
    for row in rows:
        number = predictions.row.get(row["key"])
        if row["status"] != OK or number is None:
            filled.append(row)
            continue
        if predictions.labels[number] != row["label"]:
            raise InputError(
                f"{predictions.path}: key {row['key']!r} has label {predictions.labels[number]}, "
                f"elsewhere {row['label']}; the files do not speak of the same images"
            )
        own = {
            "classes": answers.classes[number],
            "probabilities": answers.probabilities[number],
            "entropy": answers.entropy[number],
        }
        filled.append(row | own)
    return filled


def _manifest(
    known: TableManifest | None,
    found: Mapping[str, _Predictions],
    costs: Costs,
    shards: dict[str, int],
) -> TableManifest:
    unpriced = [name for name in found if name not in costs.costs]
    if unpriced:
        raise InputError(
            f"no cost given for answer {unpriced[0]!r}; add it to the file given with --costs"
        )
    stages = tuple(Stage(name, costs.costs[name], answers=True) for name in found)
    graph = StageGraph(stages, costs.unit)
    networks = {name: TableNetwork(_fingerprint(name), (name,)) for name in found}
    k = min(predictions.answers.classes.shape[1] for predictions in found.values())
    classes = 1 + max(int(p.answers.classes.max()) for p in found.values())
    if known is None:
        names = tuple(str(number) for number in range(classes))
        return TableManifest(1, graph, names, k, networks, shards)
    if costs.costs.keys() >= known.graph.stage.keys():
        before = known.graph.with_costs(costs.costs, costs.unit)
    elif known.graph.unit == costs.unit:
        before = known.graph
    else:
        raise InputError(
            f"the table's costs are in {known.graph.unit}, those given in {costs.unit}; give the "
            f"cost of every stage of the table too: {', '.join(known.graph.stage)}"
        )
    if classes > len(known.class_names):
        raise InputError(
            f"class {classes - 1} is predicted; the table's class list has "
            f"{len(known.class_names)} names"
        )
    return replace(known, graph=merged(before, graph), networks=known.networks | networks)
