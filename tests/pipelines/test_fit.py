import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from pipelines.fit import FitOptions
from policy.bundle import read_bundle
from policy.errors import InputError
from policy.evaluate import evaluate
from policy.offers import expected_cost
from policy.table import read_table
from policy.table_manifest import read_manifest


def test_fit_writes_a_policy_that_keeps_what_was_asked_for(world: Any, tmp_path: Path) -> None:
    receipt = world.fit(policy=str(tmp_path / "p"), max_loss=0.1)
    assert receipt.measured.top1_excess <= 0.1
    assert receipt.measured.speedup > 1
    assert receipt.promise == "top1 excess at most 0.1"
    assert receipt.rejected == {"decode": 1}
    assert receipt.proposed > 1


def test_the_receipt_is_what_the_written_policy_does_on_the_part_not_fitted_on(
    world: Any, tmp_path: Path
) -> None:
    receipt = world.fit(
        policy=str(tmp_path / "p"), seed=3, choose_share=0.35, test_share=0.25, no_exits=True
    )
    table = read_table(world.table)
    parts = table.problem("top1", "excess", 3).split({"fit": 0.4, "choose": 0.35, "test": 0.25})
    bundle = read_bundle(str(tmp_path / "p"))
    assert evaluate(bundle.policy, parts["test"]) == receipt.measured
    assert receipt.measured_on == "test"
    assert receipt.parts == {name: len(part) for name, part in parts.items()}
    assert sum(receipt.parts.values()) == 125


def test_the_evidence_says_how_the_policy_came_to_be(world: Any, tmp_path: Path) -> None:
    receipt = world.fit(policy=str(tmp_path / "p"), seed=3, objective="loss", max_loss=0.04)
    evidence = read_bundle(str(tmp_path / "p")).evidence
    assert (evidence.method, evidence.metric, evidence.objective) == (
        receipt.method,
        "top1",
        "loss",
    )
    assert evidence.promise == "top1 loss at most 0.04"
    assert evidence.regret == pytest.approx(receipt.measured.top1_loss)
    assert evidence.cost == pytest.approx(receipt.measured.cost)
    assert evidence.parts == receipt.parts
    assert (evidence.measured_on, evidence.certificate) == ("choose", None)
    assert evidence.data_digest == read_table(world.table).digest
    assert evidence.seed == 3
    assert "adalabel" in evidence.versions
    graph = read_bundle(str(tmp_path / "p")).policy.graph
    assert expected_cost(graph, evidence.stages) == pytest.approx(evidence.cost)
    assert evidence.offers[-1].regret <= evidence.regret
    assert evidence.calibration is None  # of a table's own costs nobody knows
    counted = evidence.reference
    assert counted.images == receipt.measured.n == sum(counted.exits.values())
    assert sum(counted.classes.values()) == counted.images
    assert counted.disagreed >= evidence.regret * counted.images - 1e-9


def test_a_budget_is_kept_and_says_so(world: Any, tmp_path: Path) -> None:
    graph = read_table(world.table).graph
    budget = 0.6 * graph.cost((graph.full,))
    receipt = world.fit(policy=str(tmp_path / "p"), budget=budget)
    assert receipt.measured.cost <= 1.1 * budget  # a mixture's share is met but for chance
    assert receipt.promise == f"cost of {budget:g}"


def test_a_policy_names_the_networks_it_runs_and_the_full_one_for_its_audit(
    world: Any, tmp_path: Path
) -> None:
    cheapest = read_table(world.table).graph.cost(("small",))
    world.fit(policy=str(tmp_path / "p"), budget=cheapest)
    assert read_bundle(str(tmp_path / "p")).fingerprints.keys() == {"small", "big"}


def test_a_budget_of_exactly_the_cheapest_network_is_enough(world: Any, tmp_path: Path) -> None:
    cheapest = read_table(world.table).graph.cost(("small",))
    receipt = world.fit(policy=str(tmp_path / "p"), budget=cheapest)
    assert receipt.measured.usage["small"].exits == 1


def test_fitting_twice_gives_the_same_policy(world: Any, tmp_path: Path) -> None:
    for name in "ab":
        world.fit(policy=str(tmp_path / name))
    a, b = (read_bundle(str(tmp_path / name)) for name in "ab")
    assert a == b


def test_other_costs_may_choose_another_policy(world: Any, tmp_path: Path) -> None:
    stages = read_table(world.table).graph.stage
    costs = tmp_path / "costs.json"
    dear = {name: 100.0 if name.startswith("small") else 1.0 for name in stages}
    costs.write_text(json.dumps({"unit": "usd", "costs": dear}))
    receipt = world.fit(policy=str(tmp_path / "p"), costs=str(costs), max_loss=1.0)
    assert receipt.measured.unit == "usd"
    assert receipt.measured.usage["big"].exits == 1  # now the cheaper of the two


def test_costs_must_price_every_stage(world: Any, tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text('{"unit": "ms", "costs": {"small": 1}}')
    with pytest.raises(InputError, match="no cost given for stage 'decode'"):
        world.fit(policy=str(tmp_path / "p"), costs=str(tmp_path / "costs.json"))


def test_the_receipt_reads_well(world: Any, tmp_path: Path) -> None:
    graph = read_table(world.table).graph
    receipt = world.fit(policy=str(tmp_path / "p"), budget=0.6 * graph.cost((graph.full,)))
    text = receipt.text()
    assert re.search(r"chose one of \d+ policies fitted on \d+ images by \w+ \(cost of", text)
    assert re.search(r"labelled by: small \d+%, big \d+%", text)
    assert "not certified" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of --max-loss and --budget"),
        ({"max_loss": 0.1, "budget": 1.0}, "give one of --max-loss and --budget"),
        ({"max_loss": -0.1}, "--max-loss -0.1: wanted a fraction from 0 to 1"),
        ({"max_loss": 5.0}, "--max-loss 5.0: wanted a fraction from 0 to 1"),
        ({"max_loss": float("nan")}, "--max-loss nan: wanted a fraction"),
        ({"budget": 1.0, "confidence": 0.9}, "--confidence says how sure to be of a --max-loss"),
        (
            {"budget": 1.0, "choose_share": 0.0},
            "'choose': 0.0, 'test': 0.2}; wanted fractions whose",
        ),
        ({"budget": 1.0, "test_share": -0.1}, "'test': -0.1}; wanted fractions"),
        ({"budget": 1.0, "choose_share": 0.8}, "'choose': 0.8, 'test': 0.2}; wanted fractions"),
        (
            {"max_loss": 0.1, "confidence": 0.9, "choose_share": 0.6},
            "'certify': 0.2}; wanted fractions",
        ),
        ({"max_loss": 0.1, "confidence": 95}, "a confidence of 95 was asked for; wanted one from"),
        ({"max_loss": 0.1, "confidence": 0.9999}, "a confidence of 0.9999 was asked for"),
        ({"budget": 1.0, "seed": -1}, "--seed -1: wanted at least 0"),
    ],
)
def test_what_cannot_be_promised_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitOptions(table="t", policy="p", **given)


@pytest.mark.parametrize(
    ("share", "message"),
    [(0.1, "images to choose with; wanted at least 40"), (0.79, "images to fit with; wanted")],
)
def test_parts_that_are_too_small_are_refused(
    world: Any, tmp_path: Path, share: float, message: str
) -> None:
    with pytest.raises(InputError, match=rf"only \d+ labelled {message}"):
        world.fit(policy=str(tmp_path / "p"), choose_share=share, no_exits=True)
    assert not (tmp_path / "p").exists()


def test_a_budget_below_every_network_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no policy costs at most 1e-09 .*larger --budget"):
        world.fit(policy=str(tmp_path / "p"), budget=1e-9)


def test_the_full_network_always_keeps_a_loss_of_nothing(world: Any, tmp_path: Path) -> None:
    receipt = world.fit(policy=str(tmp_path / "p"), max_loss=0.0)
    assert receipt.measured.top1_excess == 0
    assert receipt.promise == "top1 excess at most 0"


def test_a_table_of_four_classes_can_be_fitted_and_evaluated(world: Any, tmp_path: Path) -> None:
    mine = four_classes(tmp_path)
    receipt = world.fit(table=mine, policy=str(tmp_path / "p"), max_loss=0.5)
    assert receipt.measured.top5 == 1
    assert world.evaluate(table=mine, policy=str(tmp_path / "p")).top5_loss == 0


def four_classes(folder: Path) -> str:
    """A table of answers that list all of four classes."""
    import numpy as np  # noqa: PLC0415

    from pipelines.import_predictions import ImportOptions, run  # noqa: PLC0415

    for name, found in tiny.outputs(np.random.default_rng(0), 120).items():
        columns = {
            "key": [f"{number:03d}" for number in range(120)],
            "label": tiny.labels(120),
            "classes": found.classes.tolist(),
            "probabilities": found.probabilities.tolist(),
        }
        tiny.write_parquet(folder / f"{name}.parquet", columns)
    (folder / "costs.json").write_text('{"unit": "ms", "costs": {"small": 1, "big": 8}}')
    answers = tuple(f"{name}={folder / name}.parquet" for name in ("small", "big"))
    options = ImportOptions(
        table=str(folder / "t"), answer=answers, costs=str(folder / "costs.json")
    )
    run(options)
    return options.table


def test_costs_of_a_network_with_other_exits_are_refused(world: Any, tmp_path: Path) -> None:
    stages = read_manifest(world.table).graph.stages
    costs = {
        "unit": "ms",
        "costs": {stage.name: 1.0 for stage in stages},
        "fingerprints": {"big": "0123456789abcdef"},
    }
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    with pytest.raises(InputError, match="measured on network 'big' with fingerprint 0123"):
        world.at(tmp_path).fit(costs=str(tmp_path / "costs.json"))
