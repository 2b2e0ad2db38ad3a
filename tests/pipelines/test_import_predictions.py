import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from pipelines.evaluate import EvaluateOptions
from pipelines.evaluate import run as evaluate
from pipelines.fit import FitOptions
from pipelines.fit import run as fit
from pipelines.import_predictions import ImportOptions, ImportReceipt, run
from policy.answers import Answers, answers_from_logits
from policy.errors import InputError
from policy.table import read_table
from policy.table_manifest import read_manifest

KEYS = [f"{number:03d}" for number in range(100)]
CLASSES = 8


def predictions(seed: int, strength: float, k: int = 5, keys: Sequence[str] = KEYS) -> Answers:
    """The k best of 8 classes, right more often the larger the strength."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(keys), CLASSES)).astype(np.float32)
    logits[np.arange(len(keys)), [int(key[-1]) % CLASSES for key in keys]] += strength
    return answers_from_logits(logits, k)


def columns(answers: Answers, keys: Sequence[str] = KEYS) -> dict[str, list[Any]]:
    """A file's columns; an image's label follows from its key."""
    return {
        "key": list(keys),
        "label": [int(key[-1]) % CLASSES for key in keys],
        "classes": answers.classes.tolist(),
        "probabilities": answers.probabilities.tolist(),
    }


def options(
    folder: Path,
    answers: Mapping[str, Mapping[str, Sequence[object]]],
    costs: Mapping[str, float] | None = None,
    table: str | None = None,
    unit: str = "ms",
) -> ImportOptions:
    """Write the files and say how to import them."""
    for name, content in answers.items():
        tiny.write_parquet(folder / f"{name}.parquet", content)
    prices = {"cheap": 1.0, "dear": 9.0} if costs is None else costs
    (folder / "costs.json").write_text(json.dumps({"unit": unit, "costs": prices}))
    return ImportOptions(
        table=table or str(folder / "table"),
        answer=tuple(f"{name}={folder / name}.parquet" for name in answers),
        costs=str(folder / "costs.json"),
    )


def two(k: int = 5) -> dict[str, dict[str, list[Any]]]:
    return {
        "cheap": columns(predictions(0, 1.5, k)),
        "dear": columns(predictions(1, 3.0, k)),
    }


def shuffled(content: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    order = np.random.default_rng(5).permutation(len(content["key"]))
    return {name: [values[row] for row in order] for name, values in content.items()}


def test_the_table_holds_what_was_recorded(tmp_path: Path) -> None:
    receipt = run(options(tmp_path, two()))
    assert receipt == ImportReceipt(str(tmp_path / "table"), ("cheap", "dear"), 100, "ms")
    assert "100 records, answers cheap, dear, costs in ms" in receipt.text()
    table = read_table(receipt.table)
    assert table.keys == tuple(KEYS)
    assert table.graph.cost(("dear",)) == 9
    for name, wanted in (("cheap", predictions(0, 1.5)), ("dear", predictions(1, 3.0))):
        np.testing.assert_array_equal(table.outputs[name].classes, wanted.classes)
        np.testing.assert_array_equal(table.outputs[name].probabilities, wanted.probabilities)


def test_files_in_another_order_are_aligned_by_key(tmp_path: Path) -> None:
    plain = read_table(run(options(tmp_path / "a", two())).table)
    mixed = two() | {"dear": shuffled(two()["dear"])}
    aligned = read_table(run(options(tmp_path / "b", mixed)).table)
    assert aligned.keys == plain.keys
    np.testing.assert_array_equal(aligned.labels, plain.labels)
    np.testing.assert_array_equal(aligned.outputs["dear"].classes, plain.outputs["dear"].classes)


def test_classes_in_any_order_are_sorted_by_probability(tmp_path: Path) -> None:
    turned = two()
    for column in ("classes", "probabilities"):
        turned["cheap"][column] = [row[::-1] for row in turned["cheap"][column]]
    table = read_table(run(options(tmp_path, turned)).table)
    np.testing.assert_array_equal(table.outputs["cheap"].classes, predictions(0, 1.5).classes)


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_a_policy_can_be_fitted_on_the_k_best_classes(tmp_path: Path, k: int) -> None:
    table = run(options(tmp_path, two(k))).table
    assert read_manifest(table).topk == k
    receipt = fit(
        FitOptions(
            table=table, policy=str(tmp_path / "p"), max_loss=0.1, choose_share=0.5, test_share=0
        )
    )
    assert receipt.measured.top1_excess <= 0.1
    assert sum(receipt.parts.values()) == 100


def test_files_with_different_numbers_of_classes_fit_together(tmp_path: Path) -> None:
    answers = {"cheap": two(2)["cheap"], "dear": two(6)["dear"]}
    table = read_table(run(options(tmp_path, answers)).table)
    widths = {found.classes.shape[1] for found in table.outputs.values()}
    assert widths == {2}
    assert read_manifest(str(tmp_path / "table")).topk == 2


def test_a_policy_can_be_evaluated_on_other_imported_images(tmp_path: Path) -> None:
    learn = run(options(tmp_path / "learn", two())).table
    fit(
        FitOptions(
            table=learn, policy=str(tmp_path / "p"), max_loss=0.1, choose_share=0.5, test_share=0
        )
    )
    new = [f"new{number:02d}" for number in range(50)]
    fresh = {
        name: columns(predictions(seed, strength, 5, new), new)
        for name, seed, strength in (("cheap", 7, 1.5), ("dear", 8, 3.0))
    }
    table = run(options(tmp_path / "test", fresh)).table
    assert evaluate(EvaluateOptions(table=table, policy=str(tmp_path / "p"))).n == 50


def test_unlabelled_images_are_kept_and_left_out_of_fitting(tmp_path: Path) -> None:
    answers = two()
    for content in answers.values():
        content["label"][3] = None
    table = read_table(run(options(tmp_path, answers)).table)
    assert (len(table.keys), table.rejected) == (99, {"unlabelled": 1})


def test_more_keys_than_the_table_has_are_left_out(tmp_path: Path) -> None:
    answers = two()
    answers["cheap"] = {name: values[:60] for name, values in answers["cheap"].items()}
    assert run(options(tmp_path, answers)).records == 60


def broken(**changes: Any) -> dict[str, dict[str, list[Any]]]:
    """Two files, the second with some columns changed."""
    answers = two()
    answers["dear"] |= changes
    return answers


LABELS = two()["dear"]["label"]
CLASS_LISTS = two()["dear"]["classes"]
PROBABILITIES = two()["dear"]["probabilities"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": ["x", *KEYS[1:]]}, "dear.parquet: lacks 1 of 100 keys, '000' first; all answ"),
        ({"key": [*KEYS[:99], "003"]}, "dear.parquet: 1 keys are repeated; each once"),
        ({"key": [*KEYS[:99], None]}, "dear.parquet: cannot be read .*null"),
        ({"label": [7, *LABELS[1:]]}, "key '000' has label 7, elsewhere 0; the files do not"),
        ({"label": [None, *LABELS[1:]]}, "key '000' has label None, elsewhere 0"),
        ({"classes": [[1], *CLASS_LISTS[1:]]}, r"rows hold \['1', '5'\] classes .*; wanted the"),
        ({"classes": [None, *CLASS_LISTS[1:]]}, r"rows hold \['5', 'None'\] classes"),
        ({"classes": [c[:4] for c in CLASS_LISTS]}, r"classes \(100, 4\) and probabilities \(100"),
        ({"probabilities": [[1.5] * 5, *PROBABILITIES[1:]]}, r"probabilities must lie in \[0, 1"),
        ({"probabilities": [[-0.1] * 5, *PROBABILITIES[1:]]}, r"must lie in \[0, 1\]"),
        ({"probabilities": [[float("nan")] * 5, *PROBABILITIES[1:]]}, r"must lie in \[0, 1\]"),
        ({"classes": [[None] * 5, *CLASS_LISTS[1:]]}, "dear.parquet"),
        ({"classes": [[-1] * 5, *CLASS_LISTS[1:]]}, "dear.parquet"),
        ({"classes": [0] * 100}, "dear.parquet"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(options(tmp_path, broken(**changes)))


@pytest.mark.parametrize(
    "changes",
    [{"label": ["cat"] * 100}, {"label": [0.5] * 100}],
    ids=["text labels", "fractional labels"],
)
def test_columns_of_another_type_are_refused_by_file(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    answers = {name: content | changes for name, content in two().items()}
    with pytest.raises(InputError, match=r"cheap.parquet"):
        run(options(tmp_path, answers))


def test_a_refused_import_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks 1 of 100 keys"):
        run(options(tmp_path, broken(key=["x", *KEYS[1:]])))
    assert not (tmp_path / "table").exists()


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    content = {
        "key": pa.array([], pa.string()),
        "label": pa.array([], pa.int32()),
        "classes": pa.array([], pa.list_(pa.int32())),
        "probabilities": pa.array([], pa.list_(pa.float32())),
    }
    with pytest.raises(InputError, match=r"cheap.parquet: rows hold \[\] classes"):
        run(options(tmp_path, {"cheap": content}))


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    content = {name: values for name, values in two()["cheap"].items() if name != "label"}
    with pytest.raises(InputError, match=r"cheap.parquet: cannot be read as Parquet with col"):
        run(options(tmp_path, {"cheap": content}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    wanted = options(tmp_path, two())
    (tmp_path / "dear.parquet").unlink()
    with pytest.raises(InputError, match=r"dear.parquet: the predictions cannot be read"):
        run(wanted)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    wanted = options(tmp_path, two())
    (tmp_path / "dear.parquet").write_text("key,label\n")
    with pytest.raises(InputError, match=r"dear.parquet: cannot be read as Parquet"):
        run(wanted)


@pytest.mark.parametrize(
    "answer",
    [("cheap",), ("=f.parquet",), ("cheap=",), ("a/b=f.parquet",), ("a=f", "a=g")],
)
def test_answers_must_be_named_once(tmp_path: Path, answer: tuple[str, ...]) -> None:
    given = options(tmp_path, {})
    wanted = ImportOptions(table=given.table, answer=answer, costs=given.costs)
    with pytest.raises(InputError, match=f"--answer {answer[-1]}: wanted NAME=FILE.parquet, each"):
        run(wanted)


def test_an_import_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--answer"):
        run(options(tmp_path, {}))


def test_an_answer_may_not_be_called_like_the_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'image'"):
        run(options(tmp_path, {"image": two()["cheap"]}, {"image": 1.0}))


def test_an_answer_without_a_cost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cost given for answer 'dear'; add it to the file"):
        run(options(tmp_path, two(), {"cheap": 1.0}))


def rows_of(table: str, shard: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(f"{table}/answers/big/{shard}.parquet").to_pylist()
    return found


def third(table: str, best: int | None = None) -> dict[str, list[Any]]:
    """Predictions of a third network for every good image of a table, right but for a few."""
    rows = [row for s in ("s2", "s0", "s1") for row in rows_of(table, s) if row["status"] == "ok"]
    tops = [row["label"] if best is None else best for row in rows]
    return {
        "key": [row["key"] for row in rows],
        "label": [row["label"] for row in rows],
        "classes": [[top, *(c for c in range(5) if c != top)][:5] for top in tops],
        "probabilities": [[0.9, 0.04, 0.03, 0.02, 0.01]] * len(rows),
    }


def test_an_answer_can_be_added_to_an_extracted_table(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    before = {path: path.read_bytes() for path in Path(mine.table).rglob("*.parquet")}
    wanted = options(tmp_path, {"oracle": third(mine.table)}, {"oracle": 1.0}, mine.table, "gmac")
    receipt = run(wanted)
    assert (receipt.answers, receipt.records) == (("small", "big", "oracle"), 126)
    assert all(path.read_bytes() == content for path, content in before.items())
    table = read_table(mine.table)
    assert table.rejected == {"decode": 1}
    np.testing.assert_array_equal(table.outputs["oracle"].classes[:, 0], table.labels)
    mine.fit(max_loss=0.0)
    assert list(mine.evaluate().single) == ["small", "big", "oracle"]


def test_a_table_can_be_priced_anew_while_adding_an_answer(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    stages = [*read_manifest(mine.table).graph.stage, "oracle"]
    prices = {name: float(number) for number, name in enumerate(stages)}
    run(options(tmp_path, {"oracle": third(mine.table)}, prices, mine.table, "usd"))
    graph = read_manifest(mine.table).graph
    assert graph.unit == "usd"
    assert {stage.name: stage.cost for stage in graph.stages} == prices


def test_a_table_in_another_unit_is_refused(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    wanted = options(tmp_path, {"oracle": third(mine.table)}, {"oracle": 1.0}, mine.table)
    with pytest.raises(InputError, match="costs are in gmac, those given in ms; give the cost of"):
        run(wanted)


def test_a_class_that_the_table_has_not_is_refused(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    content = third(mine.table, best=6)
    wanted = options(tmp_path, {"oracle": content}, {"oracle": 1.0}, mine.table, "gmac")
    with pytest.raises(InputError, match="class 6 is predicted; the table's class list has 6 nam"):
        run(wanted)


@pytest.mark.parametrize("name", ["big", "decode"])
def test_an_extracted_stage_is_not_overwritten(world: Any, tmp_path: Path, name: str) -> None:
    mine = world.at(tmp_path)
    content = third(mine.table)
    with pytest.raises(InputError, match=f"'{name}'"):
        run(options(tmp_path, {name: content}, {name: 1.0}, mine.table, "gmac"))


def test_an_imported_answer_can_be_imported_again(tmp_path: Path) -> None:
    run(options(tmp_path, two()))
    better = columns(predictions(1, 9.0))
    run(options(tmp_path, {"dear": better}, {"dear": 5.0}))
    table = read_table(str(tmp_path / "table"))
    assert table.outputs["dear"].classes.tolist() == better["classes"]
    assert table.graph.cost(("dear",)) == 5
    assert table.graph.cost(("cheap",)) == 1


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    answers = {name: content | {"label": [-5, *LABELS[1:]]} for name, content in two().items()}
    with pytest.raises(InputError, match="label -5; wanted class indices from 0"):
        run(options(tmp_path, answers))


def test_our_own_labels_are_not_taken_for_the_truth(tmp_path: Path) -> None:
    answers = {name: content | {"trail": [["x"]] * 100} for name, content in two().items()}
    with pytest.raises(InputError, match=r"labels that adalabel made: .* not the truth"):
        run(options(tmp_path, answers))
