import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from pipelines.evaluate import EvaluateReceipt
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import InputError
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.rules import STOP, Policy, Rule, always
from policy.table_manifest import read_manifest

CUT = 0.6  # the policy of these tests stops at small where it is at least this sure


@pytest.fixture(scope="module")
def bundle(world: Any) -> Bundle:
    """A policy that can be replayed by hand: one threshold on the small network."""
    manifest = read_manifest(world.table)
    rule = Rule(
        "small",
        ("big", STOP),
        weights=((0.0,), (1.0,)),
        bias=(CUT, 0.0),
        features=(Feature("small", "max_probability"),),
    )
    fingerprints = {name: network.fingerprint for name, network in manifest.networks.items()}
    return Bundle(Policy(manifest.graph, "small", (rule,)), manifest.class_names, fingerprints)


@pytest.fixture(scope="module")
def policy(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("threshold"))
    write_bundle(folder, bundle)
    return folder


@pytest.fixture(scope="module")
def receipt(world: Any, policy: str) -> EvaluateReceipt:
    found: EvaluateReceipt = world.evaluate(policy=policy)
    return found


@pytest.fixture(scope="module")
def rows(world: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each good image's rows of both networks."""
    small, big = (pq.read_table(f"{world.table}/answers/{n}").to_pylist() for n in ("small", "big"))
    return [(a, b) for a, b in zip(small, big, strict=True) if a["status"] == "ok"]


def accuracy(answers: list[dict[str, Any]], k: int) -> float:
    return sum(row["label"] in row["classes"][:k] for row in answers) / len(answers)


def test_the_json_agrees_with_a_calculation_by_hand(
    receipt: EvaluateReceipt, rows: list[tuple[dict[str, Any], dict[str, Any]]], bundle: Bundle
) -> None:
    stays = [small["probabilities"][0] >= np.float32(CUT) for small, _ in rows]
    given = [a if stay else b for (a, b), stay in zip(rows, stays, strict=True)]
    full = [b for _, b in rows]
    kept = sum(stays) / len(rows)
    assert 0.1 < kept < 0.9  # or this would show little
    graph = bundle.policy.graph
    small, both, big = (graph.cost(a) for a in (("small",), ("small", "big"), ("big",)))
    cost = kept * small + (1 - kept) * both
    found = json.loads(json.dumps(asdict(receipt)))
    wanted = {
        "n": 125,
        "cost": cost,
        "speedup": big / cost,
        "top1": accuracy(given, 1),
        "top5": accuracy(given, 5),
        "top1_loss": accuracy(full, 1) - accuracy(given, 1),
        "top5_loss": accuracy(full, 5) - accuracy(given, 5),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["usage"]["small"] == pytest.approx(
        {"samples": 1.0, "exits": kept, "cost": small / cost}
    )
    going = {"samples": 1 - kept, "exits": 1 - kept, "cost": 1 - small / cost}
    assert found["usage"]["big"] == pytest.approx(going)


def test_every_single_network_stands_beside_the_policy(
    receipt: EvaluateReceipt, rows: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    assert list(receipt.single) == ["small", "big"]
    for column, name in enumerate(("small", "big")):
        alone = [pair[column] for pair in rows]
        assert receipt.single[name].top1 == pytest.approx(accuracy(alone, 1))
        assert receipt.single[name].top5 == pytest.approx(accuracy(alone, 5))
    assert receipt.single["big"].speedup == pytest.approx(1)
    assert receipt.single["big"].top1_loss == 0


def test_the_receipt_is_a_table_for_people(receipt: EvaluateReceipt) -> None:
    lines = receipt.text().splitlines()
    assert lines[0] == "125 images"
    assert "cost/gmac" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == [
        "this",
        "small",
        "big",
        "answer",
        "small",
        "big",
    ]
    assert f"{receipt.top1:.2%}" in lines[2]


@pytest.mark.parametrize(("small", "big"), [(1.0, 3.0), (3.0, 1.0), (1.0, 1.0)])
def test_costs_change_the_cost_and_nothing_else(
    world: Any, policy: str, receipt: EvaluateReceipt, tmp_path: Path, small: float, big: float
) -> None:
    stages = read_manifest(world.table).graph.stage
    prices = {**dict.fromkeys(stages, 0.0), "small": small, "big": big}
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps({"unit": "usd", "costs": prices}))
    found = world.evaluate(policy=policy, costs=str(costs))
    assert found.unit == "usd"
    assert found.cost == pytest.approx(small + big * receipt.usage["big"].samples)
    assert found.top1 == receipt.top1


def test_a_policy_of_the_full_network_loses_nothing(
    world: Any, tmp_path: Path, bundle: Bundle
) -> None:
    full = always(bundle.policy.graph, "big")
    write_bundle(str(tmp_path), replace(bundle, policy=full))
    found = world.evaluate(policy=str(tmp_path))
    assert found.speedup == pytest.approx(1)
    assert (found.top1_loss, found.top5_excess) == (0, 0)


def test_another_network_of_the_same_name_is_refused(
    world: Any, tmp_path: Path, bundle: Bundle
) -> None:
    write_bundle(str(tmp_path), replace(bundle, fingerprints={"small": "0123"}))
    own = bundle.fingerprints["small"]
    with pytest.raises(
        InputError, match=f"'small' with fingerprint 0123; the table has {own} .*decode_side.* Ev"
    ):
        world.evaluate(policy=str(tmp_path))


def test_a_table_without_the_policys_network_is_refused(
    world: Any, tmp_path: Path, policy: str
) -> None:
    table = str(tmp_path / "table")
    world.extract(output=table, networks=world.networks_file(tmp_path / "one", ["small"]))
    with pytest.raises(InputError, match=r"network 'big' .*; the table has no such network"):
        world.evaluate(table=table, policy=policy)


def test_a_table_without_the_full_answer_is_refused(
    world: Any, tmp_path: Path, bundle: Bundle
) -> None:
    own = bundle.policy.graph
    graph = StageGraph((*own.stages, Stage("huge", 9.0, answers=True)), own.unit)
    write_bundle(str(tmp_path), replace(bundle, policy=Policy(graph, "small", bundle.policy.rules)))
    with pytest.raises(InputError, match="the table lacks answer 'huge', which the policy is meas"):
        world.evaluate(policy=str(tmp_path))


def test_a_fitted_policy_can_be_evaluated_on_images_it_never_saw(
    world: Any, tmp_path: Path
) -> None:
    shard = tiny.write_tar(tmp_path / "new.tar", tiny.image_members(np.random.default_rng(0), 4))
    world.extract(output=str(tmp_path / "table"), input=(str(shard),))
    found = world.evaluate(table=str(tmp_path / "table"))
    assert found.n == 4
    assert sum(use.exits for use in found.usage.values()) == pytest.approx(1)
    assert read_bundle(world.policy).evidence.parts["choose"] != 4


def test_a_policy_judged_on_what_it_was_fitted_on_is_told_so(world: Any) -> None:
    receipt = world.evaluate()
    assert receipt.seen_in_fitting
    assert "judge it on others" in receipt.text()
