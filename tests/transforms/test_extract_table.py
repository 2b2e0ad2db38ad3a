"""Extracted tables as columns say what a dict for each row would say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import row_wise
from hypothesis import given
from hypothesis import strategies as st

from policy.answers import answers_from_logits
from policy.rows import ANSWERS_SCHEMA, FEATURES_SCHEMA, account
from transforms.careful import Failure, Part
from transforms.collect import Collector
from transforms.extract_table import (
    Extracted,
    answers_table,
    features_table,
    origins,
    outcomes_of,
    unlabelled,
)
from transforms.prepare import Prepared

SHARDS = ("day1/a", "b")
TRUNK = "small.block1"


def ran(n: int, k: int | None, rng: np.random.Generator) -> tuple[list[Part[Any]], list[Failure]]:
    """A batch that a network ran in parts, some of its images failing or not finite."""
    parts, failures, start = list[Part[Any]](), list[Failure](), 0
    while start < n:
        stop = int(rng.integers(start + 1, n + 1)) if rng.random() < 0.5 else n
        if stop - start == 1 and rng.random() < 0.5:
            failures.append(Failure(start, "network", f"small fails: {start}"))
        else:
            logits = rng.normal(size=(stop - start, 4)).astype(np.float32)
            logits[rng.random(stop - start) < 0.2, 1] = np.nan
            pooled = rng.normal(size=(stop - start, 3)).astype(np.float16)
            pooled[rng.random(stop - start) < 0.2, 2] = np.inf
            parts.append(Part(start, stop, (answers_from_logits(logits, k), {TRUNK: pooled})))
        start = stop
    return parts, failures


def both_ways(batches: Sequence[list[Prepared]], k: int | None, rng: np.random.Generator) -> Any:
    """Each shard's blocks, and its rows of answers and of features."""
    collector = Collector[Extracted]()
    rows: dict[str, dict[int, Any]] = {shard: {} for shard in SHARDS}
    for batch in batches:
        if batch[0].status != "ok":
            (item,) = batch
            reason = (item.status, item.error)
            collector.add(batch, Extracted([item.key], [None], {}, reason))
            row = {"key": item.key, "status": item.status, "error": item.error}
            rows[item.shard][item.row] = (row, row)
            continue
        parts, failures = ran(len(batch), k, rng)
        outcomes = outcomes_of(len(batch), "small", (TRUNK,), parts, failures)
        keys, labels = [item.key for item in batch], [item.label for item in batch]
        collector.add(batch, Extracted(keys, labels, outcomes))
        said = zip(*row_wise.extracted(batch, "small", parts, failures), strict=True)
        for item, pair in zip(batch, said, strict=True):
            rows[item.shard][item.row] = pair
    for shard in SHARDS:
        collector.end(shard, len(rows[shard]))
    for shard, blocks in collector.whole():
        ordered = [rows[shard][row] for row in range(len(rows[shard]))]
        yield blocks, [answer for answer, _ in ordered], [features for _, features in ordered]
    collector.check_empty()


@given(
    st.tuples(*[st.integers(0, 25)] * 2),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.2, 1]),
    st.sampled_from([1, 3, None]),
)
def test_columns_hold_what_rows_hold_whatever_the_batches(
    sizes: tuple[int, ...], seed: int, bad: float, k: int | None
) -> None:
    rng = np.random.default_rng(seed)
    batches, batch = list[list[Prepared]](), list[Prepared]()
    for shard, size in zip(SHARDS, sizes, strict=True):
        for row in range(size):
            label = int(rng.integers(4)) if rng.random() < 0.8 else None
            item = Prepared(shard, row, f"{shard}/{row}", label)
            if rng.random() < bad:
                batches.append([Prepared(shard, row, item.key, 1, None, "decode", f"at {row}")])
                continue
            batch.append(item)
            if rng.random() < 0.2:
                batches.append(batch)
                batch = []
    batches += [batch] if batch else []
    for blocks, answers, features in both_ways(batches, k, rng):
        shared = origins(blocks)
        table = answers_table(blocks, "small", shared)
        table.validate(full=True)
        assert table.equals(row_wise.table(answers, ANSWERS_SCHEMA))
        assert account(table) == row_wise.account(answers)
        pooled = features_table(blocks, TRUNK, shared)
        assert pooled.equals(row_wise.table(features, FEATURES_SCHEMA))
        good = [row for row in answers if row["status"] != "decode"]
        assert unlabelled(blocks) == sum(row["label"] is None for row in good)
