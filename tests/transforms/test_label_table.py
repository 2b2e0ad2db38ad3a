"""Labels as columns say what a dict for each row would say."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import row_wise
from hypothesis import given
from hypothesis import strategies as st

from policy.answers import Answers, answers_from_logits
from policy.columns import compact
from policy.rows import LABELS_SCHEMA, NETWORK, NONFINITE, OK
from transforms.collect import Blocks, Collector
from transforms.label_rows import LabelStep, _rows
from transforms.label_table import Labels, audits_of, label_table, statistics_of
from transforms.prepare import Prepared
from transforms.routed import Compared, Routed

NAMES = ("cat", "dog", "newt", "yak")
TRAILS = (("exit",), ("exit", "small"), ("exit", "small", "big"))
SHARDS = ("day1/a", "b", "c")


def images(sizes: Sequence[int]) -> list[Prepared]:
    return [
        Prepared(shard, row, f"{shard}/{row:04d}", None)
        for shard, size in zip(SHARDS, sizes, strict=True)
        for row in range(size)
    ]


def group_of(items: list[Prepared], rng: np.random.Generator) -> Routed:
    """Images that left the network together, in one of all the ways that there are."""
    n, trail = len(items), TRAILS[rng.integers(3)]
    said = answers_from_logits(rng.normal(size=(n, 4)), None).top(int(rng.integers(1, 5)))
    cost = float(rng.random())
    match rng.integers(4):
        case 0:
            return Routed(items, trail, cost, said, NONFINITE, f"{trail[-1]} gave NaN or infinity")
        case 1:
            return Routed(items, trail[:-1], cost, None, NETWORK, f"big fails: {rng.integers(9)}")
    audited = np.flatnonzero(rng.random(n) < 0.3).tolist()
    full = [int(f) if (f := rng.integers(5)) < 4 else None for _ in audited]
    wrong = rng.random(n) < 0.5
    audits = {
        row: Compared(best, bool(wrong[row]) and best is not None, float(rng.random()))
        for row, best in zip(audited, full, strict=True)
    }
    return Routed(items, trail, cost, said, audits=audits)


def both_ways(groups: Sequence[Routed], rejected: Sequence[Prepared], sizes: Sequence[int]) -> Any:
    """Each shard's table and statistics by columns, and by rows."""
    collector = Collector[Labels]()
    rows: dict[str, dict[int, Any]] = {shard: {} for shard in SHARDS}
    for group in groups:
        collector.add(group.items, _rows(group))
        for item, row in row_wise.labelled(group, NAMES):
            rows[item.shard][item.row] = row
    for item in rejected:
        collector.add([item], LabelStep.reject(None, item))  # type: ignore[arg-type]
        rows[item.shard][item.row] = row_wise.unlabelled(item)
    for shard, size in zip(SHARDS, sizes, strict=True):
        collector.end(shard, size)
    for shard, blocks in collector.whole():
        audits = audits_of(blocks)
        table = label_table(blocks, audits, pa.array(NAMES))
        ordered = [rows[shard][row] for row in range(len(rows[shard]))]
        wanted = row_wise.table(ordered, LABELS_SCHEMA), row_wise.statistics_of(shard, ordered)
        yield (table, statistics_of(shard, table, audits)), wanted
    collector.check_empty()


@given(
    st.tuples(*[st.integers(0, 30)] * 3), st.integers(0, 2**32 - 1), st.sampled_from([0, 0.2, 1])
)
def test_columns_hold_what_rows_hold_whatever_the_groups(
    sizes: tuple[int, ...], seed: int, bad: float
) -> None:
    rng = np.random.default_rng(seed)
    items, good, rejected = images(sizes), list[Prepared](), list[Prepared]()
    for number in rng.permutation(len(items)):
        item = items[number]
        if rng.random() < bad:
            error = f"cut at byte {number}" if rng.random() < 0.9 else None
            rejected.append(Prepared(item.shard, item.row, item.key, 3, None, "decode", error))
        else:
            good.append(item)
    groups = []
    while good:
        size = int(rng.integers(1, 17))
        groups.append(group_of(good[:size], rng))
        good = good[size:]
    found = list(both_ways(groups, rejected, sizes))
    assert len(found) == len(SHARDS)
    for (table, statistics), (wanted_table, wanted) in found:
        table.validate(full=True)
        assert table.equals(wanted_table)
        assert statistics == wanted
        for name, value in wanted.items():
            if value or isinstance(value, dict):
                assert type(statistics[name]) is type(value)
            if isinstance(value, dict):
                assert list(statistics[name]) == list(value)


def test_a_block_keeps_no_pixels_and_none_of_the_batch_beyond_its_own_classes() -> None:
    batch = answers_from_logits(np.random.default_rng(0).normal(size=(64, 21_841)), None)
    for rows in (slice(0, 1), slice(0, 64)):
        item = Prepared("a", 0, "a/0", None, pixels={"input": np.zeros((9, 9, 3), np.uint8)})
        kept = weakref.ref(item)
        block = _rows(Routed([item], ("big",), 1.0, cut(batch, rows)))
        del item
        assert kept() is None
        assert block.answers is not None
        for part in (block.answers.classes, block.answers.probabilities, block.answers.entropy):
            assert part.base is None or part.base.nbytes == part.nbytes


def cut(answers: Answers, rows: slice) -> Answers:
    few = answers.top(5)
    return Answers(few.classes[rows], few.probabilities[rows], few.entropy[rows])


def test_whole_answers_are_not_copied() -> None:
    answers = answers_from_logits(np.zeros((3, 4)), None)
    assert compact(answers).classes is answers.classes


@pytest.mark.parametrize("status", [OK, NONFINITE])
def test_images_without_a_decision_have_their_trail_and_cost_but_no_label(status: str) -> None:
    item = Prepared("b", 0, "b/0", None)
    said = answers_from_logits(np.array([[0.0, 2.0, 1.0]]), 2)
    group = Routed([item], ("exit", "big"), 2.5, said, status, None if status == OK else "NaN")
    ((table, _), _) = next(found for found in both_ways([group], [], (0, 1, 0)) if found[0][0])
    (row,) = table.to_pylist()
    assert (row["trail"], row["cost"], row["status"]) == (["exit", "big"], 2.5, status)
    assert row["label"] == (1 if status == OK else None)
    assert row["answer"] == ("big" if status == OK else None)


def test_statistics_count_by_status_exit_and_answer_got() -> None:
    small, early = ("exit", "small"), ("exit",)
    said = {n: answers_from_logits(np.eye(8)[[n]], 2) for n in (2, 7)}
    audits = [{0: Compared(3, disagrees=True, cost=8.0)}, {0: Compared(None, False, 4.0)}]  # noqa: FBT003
    blocks = [
        Labels(["a/0"], small, 2.0, said[7]),
        Labels(["a/1"], early, 1.0, said[7], audits=audits[0]),
        Labels(["a/2"], early, 1.0, said[2], audits=audits[1]),
        Labels(["a/3"], early, 1.0, None, "nonfinite"),
        Labels(["a/4"], status="decode", error="cut"),
    ]
    whole = Blocks(np.arange(5), blocks, [1] * 5)
    table = label_table(whole, audits_of(whole), pa.array([str(n) for n in range(8)]))
    assert statistics_of("a", table, audits_of(whole)) == {
        "shard": "a",
        "records": 5,
        "statuses": {"ok": 3, "nonfinite": 1, "decode": 1},
        "errors": {"cut": 1},
        "exits": {"small": 1, "exit": 2},
        "got": {"exit": 4, "small": 1},
        "cost": 5.0,
        "predicted": {"7": 2, "2": 1},
        "audited": 1,
        "disagreed": 1,
        "audit_failed": 1,
        "audit_cost": 12.0,
    }
