import json
from dataclasses import replace

import numpy as np
import proposals
import pyarrow.parquet as pq
import pytest
from real_data import DATA, needs

from policy import fit_search
from policy.answers import Answers, answers_from_probabilities
from policy.choose import within_loss
from policy.evaluate import measure
from policy.fit_per_class import LONGEST, propose
from policy.graph import Stage, StageGraph
from policy.problem import Problem
from policy.simulate import simulate

SERVICES = DATA / "predictions/frugalml"
STAR = StageGraph(
    tuple(Stage(name, cost, answers=True) for name, cost in (("a", 1.0), ("b", 5.0), ("c", 6.0))),
    "usd",
    (("a", "b"), ("a", "c")),
)


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def said(classes: np.ndarray, sure: np.ndarray) -> Answers:
    probabilities = sure.astype(np.float32)[:, None]
    return answers_from_probabilities(classes.astype(np.int32)[:, None], probabilities)


def specialists(seed: int, n: int = 1000) -> Problem:
    """Of what a calls 0 or 1, it errs on half, however sure; b knows the 0s, c the others."""
    rng = np.random.default_rng(seed)
    guess, sure = rng.integers(0, 4, n), rng.uniform(0.3, 1, n)
    wrong = (guess < 2) & (rng.random(n) < 0.5)
    labels = np.where(wrong, 2 + guess, guess).astype(np.int32)
    outputs = {
        "a": said(guess, sure),
        "b": said(np.where(guess == 0, labels, 3 - labels), sure),
        "c": said(np.where(guess == 0, 3 - labels, labels), sure),
    }
    return Problem(STAR, [f"{i}" for i in range(n)], labels, outputs, objective="loss")


def test_each_class_goes_to_the_answer_that_knows_it() -> None:
    test = specialists(1)
    points = measure(propose(specialists(0)), test)
    best = min(points, key=lambda point: point.regret)
    guess = test.outputs["a"].classes[:, 0]
    routes = simulate(best.policy, test.outputs)
    ways = np.array([trail[-1] for trail in routes.trails])[routes.trail_of]
    expected = np.array(["b", "c", "a", "a"])[guess]
    assert (ways == expected).mean() > 0.97


def test_one_threshold_for_all_classes_gains_less_there() -> None:
    test = specialists(1)
    own, common = (
        min(point.regret for point in measure(method(specialists(0)), test) if point.cost < 5)
        for method in (propose, fit_search.propose)
    )
    assert own < common - 0.1


def test_no_trail_is_longer_than_the_limit() -> None:
    graph = StageGraph(
        tuple(Stage(name, 1.0 + number, answers=True) for number, name in enumerate("pqrs")), "usd"
    )
    given = proposals.problem(graph=graph)
    for policy in propose(given):
        assert max(len(trail) for trail in policy.trails) <= LONGEST


def test_a_class_that_no_image_was_predicted_as_has_a_threshold_too() -> None:
    given = proposals.problem()
    fit = replace(given, labels=np.where(given.labels == 3, 0, given.labels)).take(
        np.flatnonzero(given.outputs["a"].classes[:, 0] != 3)
    )
    measure(propose(fit), given)


def test_with_the_metric_top5_rules_look_at_entropies() -> None:
    rules = [r for p in propose(replace(proposals.problem(), metric="top5")) for r in p.rules]
    assert {rule.features[0].kind for rule in rules} <= {"entropy"}


@pytest.mark.slow
@needs("FrugalML predictions", SERVICES)
@pytest.mark.parametrize(("name", "saved"), [("FERPLUS", 0.5), ("RAFDB", 0.45), ("COMMAND", 0.5)])
def test_services_are_matched_at_a_fraction_of_the_best_ones_price(name: str, saved: float) -> None:
    described = json.loads((SERVICES / "costs.json").read_text())["sets"][name]["apis"]
    stages, outputs = [], {}
    for api in sorted(described, key=lambda api: api["usd_per_10k"]):
        table = pq.read_table(SERVICES / api["file"])
        stages.append(Stage(api["name"], api["usd_per_10k"], answers=True))
        outputs[api["name"]] = said(table["predicted"].to_numpy(), table["confidence"].to_numpy())
    labels, keys = table["label"].to_numpy().astype(np.int32), table["key"].to_pylist()
    problem = Problem(StageGraph(tuple(stages), "usd"), keys, labels, outputs, "top1", "loss")
    parts = problem.split({"fit": 0.5, "test": 0.5})
    test = parts["test"]
    best = min(problem.graph.answers, key=lambda answer: test.lost[answer].mean())
    found = within_loss(measure(propose(parts["fit"]), test), float(test.lost[best].mean()))
    assert found.cost < (1 - saved) * problem.graph.cost((best,))
