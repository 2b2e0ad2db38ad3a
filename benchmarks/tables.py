"""What writing tables and labels costs in one thread, and deciding: by columns and by dicts.

    python -m benchmarks.tables [--repeats 5]

Prints Markdown tables. Both ways take the same answers in batches of 64 and run in turn; figures
are medians of the processor's seconds. By dicts is how it was done before (tests/row_wise.py), with
the numbers of answers stored as they are.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.machine import describe_machine
from policy.answers import Answers, answers_from_logits
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.rows import ANSWERS_SCHEMA, LABELS_SCHEMA, account, table_bytes
from policy.rules import STOP, Policy, Rule
from policy.simulate import simulate
from transforms.collect import Collector
from transforms.extract_table import Extracted, Outcome, answers_table, origins
from transforms.label_rows import _rows
from transforms.label_table import Labels, audits_of, label_table, statistics_of
from transforms.prepare import Prepared
from transforms.routed import Routed

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import row_wise

BATCH = 64
TABLES = ((10, 5), (10, 10), (1000, 5), (1000, 100), (1000, 1000), (21_841, 5), (21_841, 21_841))
MOST_BYTES = 16 << 20  # of one table
MOST_ROWS = 10_000
SHARDS = (100, 1000, 10_000)
NAMES = tuple(f"class number {n}" for n in range(1000))
TRAILS = (("exit",), ("exit", "small"), ("exit", "small", "big"))


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    print(f"{describe_machine()}, pyarrow {pa.__version__}; one thread\n")
    for table in (answers_tables, label_rows, decisions):
        for line in table(repeats):
            print(line, flush=True)
        print()


def medians(repeats: int, *sides: Callable[[], Any]) -> list[float]:
    """The processor's seconds of each side; they run in turn, once before they are measured."""
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(repeats + 1):
        for side, spent in zip(sides, seconds, strict=True):
            start = time.process_time()
            side()
            if number:
                spent.append(time.process_time() - start)
    return [statistics.median(spent) for spent in seconds]


def answers_of(n: int, classes: int, k: int, rng: np.random.Generator) -> Answers:
    """Answers of a network that is fairly sure, for n images.

    Where few of very many classes are kept, the others are not drawn at all.
    """
    drawn = min(classes, max(k, 1000))
    said = answers_from_logits(3 * rng.normal(size=(n, drawn)).astype(np.float32), k)
    number = rng.permutation(classes)[:drawn].astype(np.int32)
    return replace(said, classes=number[said.classes])


def items_of(n: int, shard: str = "day1/000123") -> list[Prepared]:
    """The records of a shard."""
    return [Prepared(shard, row, f"{shard}/{row:08d}", row % 10) for row in range(n)]


def answers_tables(repeats: int) -> Iterator[str]:
    """A shard of a table: batches of answers to the bytes of its file, and back."""
    yield "| classes | k | rows/s, dicts | columns | ratio | columns: encoding alone |"
    yield "|---" * 6 + "|"
    files = ["| classes | k | bytes a row, dicts | columns | rows/s read, dicts | columns |"]
    files += ["|---" * 6 + "|"]
    for classes, k in TABLES:
        n = min(MOST_ROWS, MOST_BYTES // (8 * k))
        rng, items = np.random.default_rng(0), items_of(n)
        batches = [items[start : start + BATCH] for start in range(0, n, BATCH)]
        said = [answers_of(len(batch), classes, k, rng) for batch in batches]
        table = table_of(batches, said)
        sides: tuple[Callable[[], Any], ...] = (
            lambda b=batches, a=said: dicts_bytes(b, a),
            lambda b=batches, a=said: columns_bytes(b, a),
            lambda t=table: table_bytes(t, {}),
        )
        slow, fast, alone = (n / seconds for seconds in medians(repeats, *sides))
        cells = f"{slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} | {alone:,.0f}"
        yield f"| {classes:,} | {k:,} | {cells} |"
        contents = [side() for side in sides[:2]]
        reads = medians(repeats, *(lambda c=content: read(c) for content in contents))
        sizes = " | ".join(f"{len(content) / n:,.1f}" for content in contents)
        rates = " | ".join(f"{n / seconds:,.0f}" for seconds in reads)
        files.append(f"| {classes:,} | {k:,} | {sizes} | {rates} |")
    yield from ["", *files]


def table_of(batches: Sequence[list[Prepared]], said: Sequence[Answers]) -> pa.Table:
    """One shard's answers, through the collector."""
    collector = Collector[Extracted]()
    for batch, answers in zip(batches, said, strict=True):
        values = (answers.classes, answers.probabilities, answers.entropy)
        keys, labels = [item.key for item in batch], [item.label for item in batch]
        collector.add(batch, Extracted(keys, labels, {"net": Outcome(values, {})}))
    collector.end(batches[0][0].shard, sum(map(len, batches)))
    ((_, blocks),) = collector.whole()
    return answers_table(blocks, "net", origins(blocks))


def columns_bytes(batches: Sequence[list[Prepared]], said: Sequence[Answers]) -> bytes:
    """The file of a shard's answers, by columns."""
    table = table_of(batches, said)
    return table_bytes(table, account(table))


def dicts_bytes(batches: Sequence[list[Prepared]], said: Sequence[Answers]) -> bytes:
    """The file of a shard's answers, by a dict for each row."""
    rows: list[dict[str, Any]] = []
    for batch, answers in zip(batches, said, strict=True):
        for number, item in enumerate(batch):
            row = {"key": item.key, "label": item.label, "status": "ok", "error": None}
            own = {
                "classes": answers.classes[number],
                "probabilities": answers.probabilities[number],
                "entropy": answers.entropy[number],
            }
            rows.append(row | own)
    return row_wise.file_of(rows, ANSWERS_SCHEMA, row_wise.account(rows))


def read(content: bytes) -> pa.Table:
    """All of a file."""
    file = pa.BufferReader(content)
    return pq.read_table(file, page_checksum_verification=True, use_threads=False)


def label_rows(repeats: int) -> Iterator[str]:
    """Groups of images that left a cascade, to the bytes and statistics of their shards."""
    yield "| labels: records a shard | us a record, dicts | columns | ratio |\n|---|---|---|---|"
    for size in SHARDS:
        groups, n = routed(size), max(size, 2000)
        sides: tuple[Callable[[], Any], ...] = (
            lambda g=groups: labelled_by_dicts(g),
            lambda g=groups, s=size: labelled_by_columns(g, s),
        )
        slow, fast = (seconds / n * 1e6 for seconds in medians(repeats, *sides))
        yield f"| {size:,} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} |"


def routed(size: int) -> list[Routed]:
    """2,000 records or one shard in groups of 21 or so, a hundredth of them rejected."""
    rng, groups = np.random.default_rng(0), list[Routed]()
    shards = range(max(size, 2000) // size)
    items = [item for shard in shards for item in items_of(size, f"day1/{shard:06d}")]
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        answers = answers_of(len(batch), 1000, 1000, rng).top(5)
        way = rng.choice(3, len(batch), p=[0.5, 0.3, 0.2])
        for number, trail in enumerate(TRAILS):
            rows = np.flatnonzero(way == number)
            own = [batch[row] for row in rows]
            groups.append(Routed(own, trail, float(number + 1), answers.take(rows)))
    return [group for group in groups if group.items]


def labelled_by_columns(groups: Sequence[Routed], size: int) -> list[bytes]:
    """The files of all shards, by columns."""
    collector, names = Collector[Labels](), pa.array(NAMES)
    for group in groups:
        collector.add(group.items, _rows(group))
    for shard in {item.shard: None for group in groups for item in group.items}:
        collector.end(shard, size)
    files = []
    for shard, blocks in collector.whole():
        audits = audits_of(blocks)
        table = label_table(blocks, audits, names)
        files.append(table_bytes(table, statistics_of(shard, table, audits)))
    return files


def labelled_by_dicts(groups: Sequence[Routed]) -> list[bytes]:
    """The files of all shards, by a dict for each row."""
    shards: dict[str, dict[int, Any]] = {}
    for group in groups:
        for item, row in row_wise.labelled(group, NAMES):
            shards.setdefault(item.shard, {})[item.row] = row
    files = []
    for shard, found in shards.items():
        rows = [found[row] for row in range(len(found))]
        files.append(row_wise.file_of(rows, LABELS_SCHEMA, row_wise.statistics_of(shard, rows)))
    return files


def decisions(repeats: int) -> Iterator[str]:
    """Decisions of a cascade of three answers on maximum probability and entropy."""
    stages = tuple(
        Stage(name, cost, answers=True) for name, cost in zip("abc", (1.0, 3.0, 9.0), strict=True)
    )
    rules = tuple(
        Rule(
            name,
            (STOP, after),
            ((1.0, -0.1), (0.0, 0.0)),
            (-0.3, 0.0),
            (Feature(name, "max_probability"), Feature(name, "entropy")),
        )
        for name, after in ("ab", "bc")
    )
    policy = Policy(StageGraph(stages, "ms"), "a", rules)
    rng = np.random.default_rng(0)
    outputs = {name: answers_of(50_000, 20, 5, rng) for name in "abc"}
    lengths = np.array([len(trail) for trail in simulate(policy, outputs).trails])
    made = int(np.minimum(lengths, 2)[simulate(policy, outputs).trail_of].sum())
    few = [outputs["a"].take(np.arange(n, n + BATCH)) for n in range(0, 49_984, BATCH)]

    def batches() -> None:
        for answers in few:
            list(policy.split({"a": answers}))

    replay, split = medians(repeats, lambda: simulate(policy, outputs), batches)
    yield "| deciding | decisions/s |\n|---|---|"
    yield f"| `simulate`, 50,000 images, {made:,} decisions | {made / replay:,.0f} |"
    yield f"| `Policy.split`, batches of {BATCH} | {len(few) * BATCH / split:,.0f} |"


if __name__ == "__main__":
    main()
