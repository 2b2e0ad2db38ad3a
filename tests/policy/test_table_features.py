from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_tables
from numpy.typing import NDArray
from tiny_tables import Change, Row

from policy import table_features
from policy.errors import InputError
from policy.rows import OK
from policy.table import Table, read_table
from policy.table_features import feature_batches
from policy.table_manifest import features_path

STAGE = "small.block2"


def read(
    folder: Path | str, rows: NDArray[np.intp] | None = None, seed: int | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float16]]:
    """All batches in one: row numbers and features."""
    table = read_table(str(folder))
    wanted = np.arange(len(table.keys)) if rows is None else rows
    order = None if seed is None else np.random.default_rng(seed)
    found = list(feature_batches(str(folder), table, STAGE, wanted, order))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([x for _, x in found])


def of_shard(shard: str, change: Callable[[list[Row]], list[Row]]) -> Change:
    def changed(rows: list[Row], stage: str, at: str) -> list[Row]:
        return change(rows) if (stage, at) == (STAGE, shard) else rows

    return changed


def test_features_come_for_the_rows_of_the_table_in_its_order(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    rows, features = read(tmp_path)
    assert rows.tolist() == list(range(12 + 9 + 15 - 3))
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, wanted)


def test_features_are_read_from_a_url_too(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    np.testing.assert_array_equal(read(f"file://{tmp_path}")[1], wanted)


def test_only_the_asked_rows_come_each_once(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    asked = np.random.default_rng(0).permutation(len(wanted))[:13]
    rows, features = read(tmp_path, asked)
    assert rows.tolist() == sorted(asked)
    np.testing.assert_array_equal(features, wanted[rows])


def test_no_row_asked_for_gives_none(tmp_path: Path) -> None:
    tiny_tables.write(tmp_path)
    table = read_table(str(tmp_path))
    assert list(feature_batches(str(tmp_path), table, STAGE, np.arange(0))) == []


def test_a_part_of_a_table_still_knows_its_features(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    chosen = np.random.default_rng(1).permutation(len(wanted))[:20]
    part = read_table(str(tmp_path)).take(chosen)
    for rows, features in feature_batches(str(tmp_path), part, STAGE, np.arange(5, 20)):
        np.testing.assert_array_equal(features, wanted[chosen[rows]])


def test_shards_come_in_random_order_if_asked(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    table = read_table(str(tmp_path))
    every, orders = np.arange(len(wanted)), set()
    for seed in range(20):
        order = np.random.default_rng(seed)
        found = list(feature_batches(str(tmp_path), table, STAGE, every, order))
        rows = np.concatenate([rows for rows, _ in found])
        assert sorted(rows) == every.tolist()
        np.testing.assert_array_equal(np.concatenate([x for _, x in found]), wanted[rows])
        orders.add(tuple(rows))
    assert len(orders) == 6


@pytest.mark.parametrize("at_once", [1, 4, 12, 100])
def test_no_more_rows_are_held_than_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(table_features, "_ROWS_AT_ONCE", at_once)
    wanted = tiny_tables.write(tmp_path)[STAGE]
    table = read_table(str(tmp_path))
    found = list(feature_batches(str(tmp_path), table, STAGE, np.arange(len(wanted))))
    assert max(len(rows) for rows, _ in found) <= at_once
    np.testing.assert_array_equal(np.concatenate([x for _, x in found]), wanted)


def overflow(*numbers: int, value: float = np.inf) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        for number in numbers:
            rows[number]["features"] = rows[number]["features"].copy()
            rows[number]["features"][1] = value
        return rows

    return change


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_rows_with_features_that_are_not_finite_are_left_out(tmp_path: Path, value: float) -> None:
    shards = {"a": 150}
    wanted = tiny_tables.write(tmp_path, of_shard("a", overflow(7, value=value)), shards)[STAGE]
    rows, features = read(tmp_path)
    assert rows.tolist() == [row for row in range(150) if row != 7]
    np.testing.assert_array_equal(features, wanted[rows])


def test_a_batch_without_a_finite_row_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_features, "_ROWS_AT_ONCE", 1)
    tiny_tables.write(tmp_path, of_shard("b", overflow(3)))
    table = read_table(str(tmp_path))
    found = list(feature_batches(str(tmp_path), table, STAGE, np.arange(33)))
    assert [len(rows) for rows, _ in found] == [1] * 32


def test_a_stage_that_overflows_float16_often_is_refused(tmp_path: Path) -> None:
    tiny_tables.write(tmp_path, of_shard("a", overflow(7, 9)), {"a": 150})
    message = (
        r"features/small.block2/a.parquet: 2 of 150 rows have features that float16 cannot hold "
        r"\(NaN, or beyond 65504\), first 'a/00007'.*'small.block2'; take it out of the networks"
    )
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[::-1], "wanted key 'b/00001', but it has 'b/00007' there"),
        (lambda rows: rows[:-1], "wanted key 'b/00008', but its 8 rows end before it"),
        (lambda rows: [*rows[:3], {**rows[3], "key": "x"}, *rows[4:]], "it has 'x' there"),
    ],
)
def test_features_of_other_rows_than_the_answers_are_refused(
    tmp_path: Path, change: Callable[[list[Row]], list[Row]], found: str
) -> None:
    tiny_tables.write(tmp_path, of_shard("b", change))
    message = rf"block2/b.parquet: holds other rows than the answers: .*{found}\. Delete the shard"
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def without(rows: list[Row]) -> list[Row]:
    return [*rows[:3], {**rows[3], "features": None}, *rows[4:]]


def with_null(rows: list[Row]) -> list[Row]:
    return [*rows[:3], {**rows[3], "features": [None] * 5}, *rows[4:]]


def shorter(rows: list[Row]) -> list[Row]:
    return [*rows[:3], {**rows[3], "features": rows[3]["features"][:2]}, *rows[4:]]


@pytest.mark.parametrize("change", [without, with_null, shorter])
def test_an_answered_row_without_all_its_features_is_refused(
    tmp_path: Path, change: Callable[[list[Row]], list[Row]]
) -> None:
    tiny_tables.write(tmp_path, of_shard("c", change))
    with pytest.raises(InputError, match=r"c\.parquet: a row with answers has no features, or not"):
        read(tmp_path)


def test_shards_of_different_widths_are_refused(tmp_path: Path) -> None:
    def narrow(rows: list[Row]) -> list[Row]:
        return [{**row, "features": row["features"][:2]} if row["status"] == OK else row
                for row in rows]  # fmt: skip

    tiny_tables.write(tmp_path, of_shard("b", narrow))
    with pytest.raises(InputError, match=r"b\.parquet: holds 2 features, other shards 5\. Extract"):
        read(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    tiny_tables.write(tmp_path)
    (tmp_path / features_path(STAGE, "b")).unlink()
    with pytest.raises(InputError, match=r"block2/b\.parquet: cannot be read: .*Extract it again"):
        read(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    tiny_tables.write(tmp_path)
    tiny.write_parquet(tmp_path / features_path(STAGE, "b"), {"key": ["a"], "features": [[1.0]]})
    with pytest.raises(InputError, match=r"block2/b\.parquet: not a file of features, or damaged"):
        read(tmp_path)


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    wanted = tiny_tables.write(tmp_path)[STAGE]
    path = tmp_path / features_path(STAGE, "train/a")
    table, content, noticed = read_table(str(tmp_path)), path.read_bytes(), 0
    rng, every = np.random.default_rng(0), np.arange(len(wanted))
    for place in range(0, len(content), 17):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = list(feature_batches(str(tmp_path), table, STAGE, every))
        except InputError:
            noticed += 1
            continue
        np.testing.assert_array_equal(np.concatenate([x for _, x in found]), wanted)
    assert noticed > 20


def test_a_table_that_no_folder_holds_has_no_features(tmp_path: Path) -> None:
    tiny_tables.write(tmp_path)
    table: Table = replace(read_table(str(tmp_path)), places=None)
    with pytest.raises(InputError, match="not read from a folder, so it has no features"):
        list(feature_batches(str(tmp_path), table.take(np.arange(3)), STAGE, np.arange(3)))
