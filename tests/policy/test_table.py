import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import tiny_tables

from policy.answers import Answers
from policy.costs import Costs
from policy.errors import InputError
from policy.rows import ANSWERS_SCHEMA, OK, parquet_bytes
from policy.schema import to_json
from policy.table import Table, _good_rows, _read_answer, read_table
from policy.table_manifest import (
    MANIFEST,
    TableManifest,
    TableNetwork,
    answers_path,
    features_path,
    read_manifest,
)

N = 12
SHARDS = ("train/a", "train/b")
NETWORKS = {
    "small": TableNetwork("f1", ("small.block1.exit", "small"), ("small.block1",)),
    "big": TableNetwork("f2", ("big",)),
}
Row = dict[str, Any]


def manifest(shards: Sequence[str] = SHARDS) -> TableManifest:
    names = ("cat", "dog", "newt", "yak")
    return TableManifest(1, tiny.GRAPH, names, None, NETWORKS, dict.fromkeys(shards, N))


def good_rows(answers: Answers, shard: str) -> list[Row]:
    return [
        {
            "key": f"{shard}/{i:04d}",
            "label": int(tiny.labels(N)[i]),
            "classes": answers.classes[i].tolist(),
            "probabilities": answers.probabilities[i].tolist(),
            "entropy": float(answers.entropy[i]),
            "status": OK,
            "error": None,
        }
        for i in range(N)
    ]


def rejected(row: Row, status: str) -> Row:
    return {"key": row["key"], "status": status, "error": "as a test"}


def unchanged(rows: list[Row], answer: str, shard: str) -> list[Row]:
    del answer, shard
    return rows


def write_table(
    folder: Path, change: Callable[[list[Row], str, str], list[Row]] = unchanged
) -> dict[str, dict[str, Answers]]:
    """A table of two shards, its rows changed by `change(rows, answer, shard)`."""
    rng = np.random.default_rng(0)
    outputs = {shard: tiny.outputs(rng, N) for shard in SHARDS}
    for shard in SHARDS:
        for name, answers in outputs[shard].items():
            rows = change(good_rows(answers, shard), name, shard)
            path = folder / answers_path(name, shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(parquet_bytes(rows, ANSWERS_SCHEMA, {}))
    (folder / MANIFEST).write_text(to_json(manifest()))
    return outputs


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    outputs = write_table(tmp_path)
    table = read_table(str(tmp_path), k=3)
    assert table.keys == tuple(f"{shard}/{i:04d}" for shard in SHARDS for i in range(N))
    assert table.labels.tolist() == [*tiny.labels(N), *tiny.labels(N)]
    assert table.labels.dtype == np.int32
    assert (table.graph, table.networks, table.rejected) == (tiny.GRAPH, NETWORKS, {})
    assert list(table.outputs) == list(tiny.GRAPH.answers)
    for name, answers in table.outputs.items():
        parts = [outputs[shard][name].top(3) for shard in SHARDS]
        for field in ("classes", "probabilities", "entropy"):
            wanted = np.concatenate([getattr(part, field) for part in parts])
            np.testing.assert_array_equal(getattr(answers, field), wanted)
            assert getattr(answers, field).dtype == wanted.dtype


def test_a_table_is_read_from_a_url_too(tmp_path: Path) -> None:
    write_table(tmp_path)
    assert read_table(f"file://{tmp_path}").digest == read_table(str(tmp_path)).digest


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_may_have_any_name(tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "my table #1 100%20"
    write_table(folder)
    assert len(read_table(f"{scheme}{folder}").keys) == 2 * N


def test_features_and_answers_lie_side_by_side() -> None:
    assert answers_path("small", "train/a") == "answers/small/train/a.parquet"
    assert features_path("small.block1", "a") == "features/small.block1/a.parquet"


def test_rejected_and_unlabelled_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    def change(rows: list[Row], answer: str, shard: str) -> list[Row]:
        if shard == SHARDS[0]:
            rows[1] = rejected(rows[1], "decode")
            rows[3] = {**rows[3], "label": None}
            if answer != "small.block1.exit":
                rows[5] = rejected(rows[5], "nonfinite")
            if answer == "big":
                rows[7] = rejected(rows[7], "nonfinite")
        return rows

    outputs = write_table(tmp_path, change)
    table = read_table(str(tmp_path))
    assert table.rejected == {"decode": 1, "nonfinite": 2, "unlabelled": 1}
    kept = [i for i in range(N) if i not in (1, 3, 5, 7)]
    assert table.keys[: len(kept)] == tuple(f"{SHARDS[0]}/{i:04d}" for i in kept)
    assert table.labels[: len(kept)].tolist() == tiny.labels(N)[kept].tolist()
    assert len(table.keys) == len(kept) + N
    for name, answers in table.outputs.items():
        wanted = outputs[SHARDS[0]][name].classes[kept]
        np.testing.assert_array_equal(answers.classes[: len(kept)], wanted)


def test_the_first_reason_counts() -> None:
    def columns(*statuses: str, label: int | None = 0) -> pa.Table:
        return pa.table({"status": statuses, "label": pa.array([label] * len(statuses), "int32")})

    good, counted = _good_rows([columns(OK, "decode", OK), columns("late", "late", OK)])
    assert good.tolist() == [False, False, True]
    assert counted == {"decode": 1, "late": 1}
    assert _good_rows([columns("decode", label=None)])[1] == {"decode": 1}


@pytest.mark.parametrize("place", [0, 1])
def test_a_shard_of_bad_or_no_records_does_not_hinder_the_others(
    tmp_path: Path, place: int
) -> None:
    def none(rows: list[Row], answer: str, shard: str) -> list[Row]:
        del answer
        return [] if shard == SHARDS[place] else rows

    def bad(rows: list[Row], answer: str, shard: str) -> list[Row]:
        del answer
        return [rejected(row, "decode") for row in rows] if shard == SHARDS[place] else rows

    for change, lost in ((none, {}), (bad, {"decode": N})):
        write_table(tmp_path, change)
        table = read_table(str(tmp_path))
        assert table.rejected == lost
        assert {key.rpartition("/")[0] for key in table.keys} == {SHARDS[1 - place]}


def reverse(rows: list[Row]) -> list[Row]:
    return rows[::-1]


def drop_one(rows: list[Row]) -> list[Row]:
    return rows[:-1]


def rename_one(rows: list[Row]) -> list[Row]:
    return [{**rows[0], "key": "other"}, *rows[1:]]


@pytest.mark.parametrize("harm", [reverse, drop_one, rename_one])
def test_answers_with_other_keys_are_refused(
    tmp_path: Path, harm: Callable[[list[Row]], list[Row]]
) -> None:
    def change(rows: list[Row], answer: str, shard: str) -> list[Row]:
        return harm(rows) if (answer, shard) == ("big", SHARDS[1]) else rows

    write_table(tmp_path, change)
    message = "answers 'small.block1.exit' and 'big' hold different keys; extract both again"
    with pytest.raises(InputError, match=message):
        read_table(str(tmp_path))


def test_a_table_without_a_good_row_is_refused(tmp_path: Path) -> None:
    def change(rows: list[Row], answer: str, shard: str) -> list[Row]:
        del answer, shard
        return [{**rows[0], "label": None}, *(rejected(row, "decode") for row in rows[1:])]

    write_table(tmp_path, change)
    message = r"none of 24 rows is labelled and good: \{'decode': 22, 'unlabelled': 2\}"
    with pytest.raises(InputError, match=message):
        read_table(str(tmp_path))


def test_a_table_without_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(to_json(manifest(shards=())))
    with pytest.raises(InputError, match=r"none of 0 rows|no shard"):
        read_table(str(tmp_path))


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="a table without answers"):
        _good_rows([])


@pytest.mark.parametrize("table", ["", "missing", "file://"])
def test_a_table_without_a_manifest_is_unfinished(tmp_path: Path, table: str) -> None:
    where = f"{table}{tmp_path}" if "://" in table else str(tmp_path / table)
    message = r"no finished table; run `adalabel extract` or `adalabel import` \(again\)"
    with pytest.raises(InputError, match=message):
        read_table(where)


def test_a_manifest_reads_back_equal(tmp_path: Path) -> None:
    write_table(tmp_path)
    assert read_manifest(str(tmp_path)) == manifest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"newer adalabel \(version 2, this one reads 1\); update"),
        ({"extra": 1}, "extra: Unexpected keyword argument"),
        ({"shards": {"a": "12"}}, r"shards\.a: Input should be a valid integer"),
        ({"topk": 2.5}, "topk: Input should be a valid integer"),
        ({"networks": {"n": {"fingerprint": "f"}}}, r"networks\.n\.answers: Field required"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, change: Row, message: str) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({**json.loads(to_json(manifest())), **change}))
    with pytest.raises(InputError, match=rf"{MANIFEST}: .*{message}"):
        read_manifest(str(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_table(tmp_path)
    (tmp_path / answers_path("big", SHARDS[1])).unlink()
    message = r"answers/big/train/b\.parquet: cannot be read: .*Extract it again"
    with pytest.raises(InputError, match=message):
        read_table(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    write_table(tmp_path)
    (tmp_path / answers_path("small", SHARDS[0])).write_bytes(content)
    with pytest.raises(InputError, match=r"answers/small/train/a\.parquet: cannot be read"):
        read_table(str(tmp_path))


def test_a_parquet_file_of_another_kind_is_named(tmp_path: Path) -> None:
    write_table(tmp_path)
    tiny.write_parquet(tmp_path / answers_path("small", SHARDS[0]), {"key": ["a"], "value": [1]})
    with pytest.raises(InputError, match=r"answers/small/train/a\.parquet"):
        read_table(str(tmp_path))


@pytest.mark.parametrize("column", ["classes", "probabilities"])
@pytest.mark.parametrize("few", [slice(N), slice(7, 8)])
def test_a_list_that_was_cut_is_noticed(tmp_path: Path, column: str, few: slice) -> None:
    def cut(rows: list[Row], answer: str, shard: str) -> list[Row]:
        for row in rows[few] if (answer, shard) == ("big", SHARDS[1]) else ():
            row[column] = row[column][:-1]
        return rows

    write_table(tmp_path, cut)
    said = r"answers/big/train/b\.parquet: rows with different numbers of classes or probabilities"
    with pytest.raises(InputError, match=said):
        read_table(str(tmp_path))


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    write_table(tmp_path)
    path = tmp_path / answers_path("big", SHARDS[0])
    content, wanted = path.read_bytes(), read_table(str(tmp_path))
    rng, noticed = np.random.default_rng(0), 0
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_table(str(tmp_path))
        except InputError:
            noticed += 1
            continue
        assert found.keys == wanted.keys
        assert found.digest == wanted.digest
        for field in ("classes", "probabilities", "entropy"):
            a, b = (getattr(table.outputs["big"], field) for table in (found, wanted))
            np.testing.assert_array_equal(a, b)
    assert noticed > 100


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write_table(tmp_path)
    return read_table(str(tmp_path))


def test_rows_are_taken_from_every_column_alike(table: Table) -> None:
    rows = np.random.default_rng(0).permutation(2 * N)[:7]
    some = table.take(rows)
    assert some.keys == tuple(table.keys[row] for row in rows)
    assert some.labels.tolist() == table.labels[rows].tolist()
    for name, answers in some.outputs.items():
        np.testing.assert_array_equal(answers.entropy, table.outputs[name].entropy[rows])


def test_the_same_table_may_be_priced_otherwise(table: Table) -> None:
    costs = Costs("usd", {stage.name: 2.0 for stage in tiny.GRAPH.stages})
    priced = table.at_costs(costs)
    assert priced.graph.unit == "usd"
    assert priced.graph.cost(("big",)) == 6.0
    assert priced.digest == table.digest


def test_the_digest_changes_with_keys_labels_and_networks(table: Table) -> None:
    other = {"small": NETWORKS["small"], "big": TableNetwork("f3", ("big",))}
    changed = [
        table.take(np.arange(2 * N - 1)),
        table.take(np.arange(2 * N)[::-1]),
        replace(table, keys=("x", *table.keys[1:])),
        replace(table, labels=table.labels + 1),
        replace(table, networks=other),
    ]
    assert len({table.digest, *(one.digest for one in changed)}) == 6
    assert replace(table, rejected={"decode": 3}).digest == table.digest


def test_all_classes_are_read_where_they_are_few_and_the_best_where_they_are_many(
    tmp_path: Path,
) -> None:
    for classes, wanted in ((4, 4), (100, 100), (101, 5)):
        folder = tmp_path / str(classes)
        tiny_tables.write(folder, classes=classes)
        assert read_table(str(folder)).k == wanted
        assert read_table(str(folder), 3).k == 3


def test_damaged_text_in_a_file_of_answers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"key": "caf\u00e9", "status": OK} | dict.fromkeys(("label", "error", "entropy"))]
    content = parquet_bytes(rows, ANSWERS_SCHEMA, {"about": "caf\u00e9"})
    spoilt = content.replace(b"entropy", b"entr\xffpy")  # a column's name in the footer
    assert spoilt != content
    path.write_bytes(spoilt)
    with pytest.raises(InputError, match=r"a\.parquet: (cannot be read|not a file of answers)"):
        _read_answer([str(path)], 1)
