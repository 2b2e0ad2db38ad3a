"""Every method's policy, saved, loaded and routed by classify, does what simulate says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from pipelines import import_predictions
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import InputError
from policy.exits import with_exits
from policy.heads import Head
from policy.methods import METHODS, Name
from policy.mixture import Routing, answers_used
from policy.simulate import simulate
from policy.table import Table, read_table
from transforms.fit_heads import fit_exits

Fitted = tuple[Table, dict[str, Head]]


@pytest.fixture(scope="module")
def fitted(world: Any) -> Fitted:
    """The world's table with its exits' answers, and their heads."""
    table = read_table(world.table)
    heads = fit_exits(world.table, table, np.arange(len(table.keys)), seed=0)
    return with_exits(world.table, table, heads, 5), heads


def most_trails(policies: Sequence[Routing], table: Table) -> Routing:
    """The policy that sends images most different ways, the likeliest to go wrong."""

    def ways(policy: Routing) -> tuple[int, float]:
        routes = simulate(policy, table.outputs, table.keys)
        shares = np.bincount(routes.trail_of) / len(table.keys)
        return len(set(routes.trails)), -float(shares.max())

    return max(policies, key=ways)


def test_every_method_has_a_name_on_the_command_line() -> None:
    assert set(METHODS) == set(get_args(Name))


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_policy_is_routed_as_it_is_simulated(
    name: Name, world: Any, fitted: Fitted, tmp_path: Path
) -> None:
    table, heads = fitted
    policy = most_trails(METHODS[name](table.problem("top1", "loss")), table)
    used = answers_used(policy)
    bundle = Bundle(
        policy,
        table.class_names,
        {n: w.fingerprint for n, w in table.networks.items() if used & set(w.answers)},
        heads={exit_: head for exit_, head in heads.items() if exit_ in used},
    )
    write_bundle(str(tmp_path / "policy"), bundle)
    found = read_bundle(str(tmp_path / "policy")).policy
    assert found == policy
    world.classify(tmp_path / "labels", policy=str(tmp_path / "policy"), batch_size=7)

    paths = sorted((tmp_path / "labels").glob("*.parquet"))
    rows = {row["key"]: row for path in paths for row in pq.read_table(path).to_pylist()}
    routes = simulate(found, table.outputs, table.keys)
    given = routes.answers(table.outputs, 5)
    if name != "single":
        assert len(set(routes.trails)) > 1  # or this would show little
    for number, key in enumerate(table.keys):
        row = rows[key]
        assert row["trail"] == list(routes.trails[routes.trail_of[number]])
        assert row["label"] == given.classes[number, 0]
        assert row["cost"] == pytest.approx(routes.cost[number])
        np.testing.assert_allclose(
            row["probabilities"][0], given.probabilities[number, 0], atol=1e-5
        )


def test_the_fit_command_uses_exits_and_reports(world: Any, tmp_path: Path) -> None:
    policy = str(tmp_path / "p")
    receipt = world.fit(policy=policy, method="search", no_exits=False, choose_share=0.35)
    assert receipt.parts.keys() == {"heads", "fit", "choose", "test"}
    bundle = read_bundle(policy)
    assert "small.block1.exit" in bundle.policy.graph.answers
    assert bundle.heads.keys() == {a for a in answers_used(bundle.policy) if a.endswith(".exit")}
    found = world.evaluate(policy=policy)
    assert found.seen_in_fitting  # whichever exits the policy uses
    assert "small.block1.exit" in found.usage
    page = (tmp_path / "p" / "report.html").read_text()
    assert "msdnet" in page
    assert "no part was kept for a test" in page
    assert not re.search(r'(src|href)="http', page)


def test_the_fit_command_certifies_on_a_part_of_its_own(world: Any, tmp_path: Path) -> None:
    outputs = tiny.outputs(np.random.default_rng(0), 2000)
    for name in ("small", "big"):
        columns = {
            "key": [f"{number:04d}" for number in range(2000)],
            "label": tiny.labels(2000),
            "classes": outputs[name].classes.tolist(),
            "probabilities": outputs[name].probabilities.tolist(),
        }
        tiny.write_parquet(tmp_path / f"{name}.parquet", columns)
    (tmp_path / "costs.json").write_text('{"unit": "ms", "costs": {"small": 1, "big": 8}}')
    import_predictions.run(
        import_predictions.ImportOptions(
            table=str(tmp_path / "table"),
            answer=tuple(f"{name}={tmp_path / name}.parquet" for name in ("small", "big")),
            costs=str(tmp_path / "costs.json"),
        )
    )
    given = {"table": str(tmp_path / "table"), "policy": str(tmp_path / "p"), "method": "msdnet"}
    shares = {"choose_share": 0.3, "certify_share": 0.3, "test_share": 0.1}
    receipt = world.fit(**given, **shares, max_loss=0.1, confidence=0.9)
    assert receipt.certificate.passed
    assert receipt.certificate.n == receipt.parts["certify"] > 500
    assert "certified at 90% confidence" in receipt.text()
    assert read_bundle(str(tmp_path / "p")).evidence.certificate == receipt.certificate
    with pytest.raises(InputError, match="images"):
        world.fit(**given, **shares, max_loss=0.001, confidence=0.9)


def test_best_names_the_method_that_won(world: Any, tmp_path: Path) -> None:
    receipt = world.fit(policy=str(tmp_path / "p"), method="best", max_loss=0.12)
    assert set(receipt.method.split("+")) <= set(METHODS)
    everyone = world.fit(policy=str(tmp_path / "q"), method="search", max_loss=0.12)
    assert receipt.measured.cost <= everyone.measured.cost
    assert receipt.proposed > everyone.proposed
