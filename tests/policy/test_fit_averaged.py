from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import proposals
import pytest
import tiny

from policy import search
from policy.answers import answers_from_logits
from policy.choose import within_loss
from policy.evaluate import measure
from policy.fit_averaged import fit_weights, propose
from policy.graph import Stage, StageGraph
from policy.losses import wrong
from policy.means import Mean, weighted_mean
from policy.problem import Problem
from policy.rules import always

PAIR = StageGraph((Stage("small", 1.0, answers=True), Stage("big", 4.0, answers=True)), "usd")
EXIT, SMALL, BIG = tiny.GRAPH.answers


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """Two prices a decade: as good a test, and faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "STEPS_PER_DECADE", 2)
        yield


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def pair(noise: tuple[float, float], n: int = 4000, seed: int = 0) -> Problem:
    """Two networks whose logits are the same signal with independent noise of these sizes."""
    rng, labels = np.random.default_rng(seed), tiny.labels(n)
    outputs = {}
    for name, size in zip(("small", "big"), noise, strict=True):
        logits = size * rng.normal(size=(n, tiny.CLASSES))
        logits[np.arange(n), labels] += 1
        outputs[name] = answers_from_logits(logits, None)
    return Problem(PAIR, [f"k{i}" for i in range(n)], labels, outputs)


def share_of(mean: Mean, answer: str) -> float:
    weights = dict(mean.weights)
    return weights[answer] / sum(weights.values())


def test_weights_make_the_mean_that_is_right_most_often() -> None:
    problem = pair((1.0, 0.8))
    parts = list(problem.outputs.values())
    found = fit_weights(problem, ("small", "big"))
    shares = np.linspace(0.3, 0.95, 27)
    errors = [
        wrong(weighted_mean(parts, [1 - s, s]), problem.labels, "top1").mean() for s in shares
    ]
    error = wrong(found.of(problem.outputs), problem.labels, "top1").mean()
    assert error <= min(errors) + 0.005
    assert error < min(wrong(part, problem.labels, "top1").mean() for part in parts) - 0.01


@pytest.mark.parametrize(("noise", "low", "high"), [((0.8, 0.8), 0.3, 0.75), ((4, 0.8), 0.79, 1)])
def test_an_answer_counts_the_more_the_better_it_is(
    noise: tuple[float, float], low: float, high: float
) -> None:
    assert low <= share_of(fit_weights(pair(noise), ("small", "big")), "big") <= high


def test_where_every_share_is_as_good_the_largest_is_taken() -> None:
    problem = pair((0.8, 0.8))
    same = replace(problem, outputs=dict.fromkeys(problem.outputs, problem.outputs["big"]))
    assert share_of(fit_weights(same, ("small", "big")), "big") == pytest.approx(0.95)


def test_a_known_mixture_of_three_is_recovered() -> None:
    """The third answer is wrong wherever the mean of the first two does not outvote it."""
    n, labels = 600, tiny.labels(600)
    sure = np.linspace(0.5, 0.999, n)
    other = (labels + 1) % tiny.CLASSES
    outputs = {}
    for name, right in {"a": 0.8, "b": 0.8, "c": 0.2}.items():
        logits = np.full((n, tiny.CLASSES), -30.0)
        logits[np.arange(n), labels] = np.log(right)
        logits[np.arange(n), other] = np.log(1 - right)
        outputs[name] = answers_from_logits(logits, None)
    stages = tuple(Stage(name, float(cost), answers=True) for cost, name in enumerate("abc", 1))
    problem = Problem(StageGraph(stages, "usd"), [str(x) for x in sure], labels, outputs)
    found = fit_weights(problem, ("a", "b", "c"))
    assert not wrong(found.of(outputs), labels, "top1").any()
    assert share_of(found, "c") < 0.5
    assert dict(found.weights)["b"] == pytest.approx(19 * dict(found.weights)["a"])


def test_the_largest_weight_is_one_and_the_rest_above_none() -> None:
    problem = tiny.problem(0, 200)
    weights = [weight for _, weight in fit_weights(problem, tiny.GRAPH.answers).weights]
    assert max(weights) == 1
    assert min(weights) > 0


@pytest.mark.parametrize(("k", "wanted"), [(1, 1), (3, 3), (None, 4)])
def test_a_mean_is_of_as_many_classes_as_the_table_has(k: int | None, wanted: int) -> None:
    problem = tiny.problem(0, 60, k)
    assert fit_weights(problem, tiny.GRAPH.answers).k == wanted


def test_a_mean_is_of_the_classes_that_all_its_answers_have() -> None:
    problem = tiny.problem(0, 200)
    narrow = problem.outputs | {EXIT: problem.outputs[EXIT].top(1)}
    found = replace(problem, outputs=narrow)
    assert fit_weights(found, (EXIT, BIG)).k == 1
    assert fit_weights(found, (SMALL, BIG)).k == 4
    assert {policy.mean.k for policy in propose(found) if policy.mean} == {1, 4}


def test_every_policy_has_its_own_mean_but_the_single_answers() -> None:
    problem = tiny.problem(0, 100)
    found = propose(problem)
    singles = {always(problem.graph, name) for name in (BIG, SMALL, EXIT)}
    assert singles <= set(found)
    for policy in set(found) - singles:
        assert policy.mean is not None
        assert {name for name, _ in policy.mean.weights} >= set(policy.reachable(policy.start))


def test_averaging_answers_that_err_independently_loses_less_at_the_same_cost() -> None:
    fit, other = (pair((1.0, 0.8), 3000, seed) for seed in (0, 1))
    fit, other = (replace(problem, objective="loss") for problem in (fit, other))
    best = within_loss(measure(propose(fit), other), -0.01)
    assert best.cost < 5.0
    assert best.regret <= -0.01  # better than the full network, which no single answer is
