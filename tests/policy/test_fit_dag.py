from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from policy import fit_dag
from policy.answers import Answers
from policy.choose import within_loss
from policy.evaluate import Point, measure
from policy.features import Feature
from policy.fit_dag import confidences, propose
from policy.graph import Stage, StageGraph
from policy.losses import Metric, Objective
from policy.rules import STOP, Policy, always
from policy.schema import from_json, to_json
from policy.simulate import simulate

Outputs = Mapping[str, Answers]
TWO = StageGraph((Stage("cheap", 1.0, answers=True), Stage("full", 10.0, answers=True)), "ms")
CHAIN = StageGraph(
    (
        Stage("a", 1.0, answers=True),
        Stage("t", 1.0, ("image", "a")),
        Stage("b", 1.0, ("t",), answers=True),
        Stage("c", 9.0, answers=True),
    ),
    "ms",
)
SWEEP = 4 * 5 + 1
"""Policies per start at five prices a decade, which `coarse` sets: as good a test, much faster."""


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_dag, "LAMBDAS_PER_DECADE", 5)
        yield


def said(right: NDArray[np.bool_], sure: NDArray[np.float64]) -> Answers:
    """Answers that are right (class 0) or wrong, and this sure of it, in [0.5, 1)."""
    best = np.where(right, 0, 1)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    return Answers(
        np.stack([best, 1 - best], axis=1).astype(np.int32),
        probabilities.astype(np.float32),
        entropy.astype(np.float32),
    )


def fitted(
    graph: StageGraph,
    fit: Outputs,
    other: Outputs,
    max_loss: float,
    objective: Objective = "excess",
) -> Point:
    """Propose on some images, choose on others; every label is class 0."""
    zeros = np.zeros(len(fit[graph.full]), np.int32)
    policies = propose(fit, zeros, graph, "top1", objective)
    singles = [always(graph, answer) for answer in graph.answers]
    zeros = np.zeros(len(other[graph.full]), np.int32)
    points = measure([*dict.fromkeys(policies), *singles], other, zeros, "top1", objective)
    return within_loss(points, max_loss)


def two(seed: int, kind: str, n: int = 600) -> dict[str, Answers]:
    """A full network that is always right, after a cheap one of this kind."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 0.999, n)
    right = {
        "confident": sure > 0.8,
        "useless": np.zeros(n, bool),
        "perfect": np.ones(n, bool),
        "calibrated": rng.random(n) < sure,
    }[kind]
    return {"cheap": said(right, sure), "full": said(np.ones(n, bool), np.full(n, 0.9))}


def chain(seed: int, n: int = 900, *, useless: bool = False) -> dict[str, Answers]:
    """Images of a difficulty that shows: a, b and c are right up to 1/3, 2/3 and 1 of it."""
    difficulty = np.random.default_rng(seed).random(n)
    sure = 0.999 - 0.49 * difficulty
    ends = {"a": 1 / 3, "b": 1 / 3 if useless else 2 / 3, "c": 1}
    return {name: said(difficulty <= end, sure) for name, end in ends.items()}


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_a_cheap_answer_that_is_right_when_confident_is_kept_when_confident(
    objective: Objective,
) -> None:
    other = two(1, "confident", 2000)
    point = fitted(TWO, two(0, "confident"), other, 0.005, objective)
    right = (other["cheap"].classes[:, 0] == 0).mean()
    assert point.policy.start == "cheap"
    assert point.cost == pytest.approx(1 + 10 * (1 - right), rel=0.03)


def test_a_useless_cheap_answer_never_ends_a_trail() -> None:
    other = two(1, "useless")
    assert fitted(TWO, two(0, "useless"), other, 0.01) == Point(always(TWO, "full"), 10.0, 0.0)
    safest = propose(two(0, "useless"), np.zeros(600, np.int32), TWO, "top1", "excess")[0]
    assert simulate(safest, other).trails == (("cheap", "full"),)


def test_a_cheap_answer_that_is_always_right_ends_every_trail() -> None:
    fit = two(0, "perfect")
    assert fitted(TWO, fit, two(1, "perfect"), 0.0) == Point(always(TWO, "cheap"), 1.0, 0.0)
    policies = propose(fit, np.zeros(600, np.int32), TWO, "top1", "excess")
    assert set(policies) == {always(TWO, "cheap"), always(TWO, "full")}


def test_three_answers_in_a_chain_are_each_used_for_the_images_they_suffice_for() -> None:
    other = chain(1)
    point = fitted(CHAIN, chain(0), other, 0.01)
    # a alone 1; a, t, b 3; a jump from a over b to c 10
    assert point.cost == pytest.approx((1 + 3 + 10) / 3, rel=0.05)
    trails = set(simulate(point.policy, other).trails)
    assert {("a",), ("a", "b"), ("a", "c")} <= trails


def test_an_answer_that_adds_nothing_is_jumped_over() -> None:
    other = chain(1, useless=True)
    point = fitted(CHAIN, chain(0, useless=True), other, 0.01)
    assert point.cost == pytest.approx((1 + 2 * 10) / 3, rel=0.03)
    shares = np.bincount(simulate(point.policy, other).trail_of) / 900
    assert dict(zip(simulate(point.policy, other).trails, shares, strict=True)).get(
        ("a", "c")
    ) == pytest.approx(2 / 3, abs=0.03)


def test_without_the_jump_the_middle_answer_is_passed_through() -> None:
    graph = replace(CHAIN, edges=(("a", "b"), ("b", "c")))
    other = chain(1, useless=True)
    point = fitted(graph, chain(0, useless=True), other, 0.01)
    assert ("a", "c") not in simulate(point.policy, other).trails
    assert point.regret <= 0.01


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_a_policy_that_loses_one_percent_is_cheaper_on_images_nobody_saw(
    objective: Objective,
) -> None:
    point = fitted(TWO, two(0, "calibrated", 2000), two(1, "calibrated", 2000), 0.01, objective)
    third = two(2, "calibrated", 4000)
    zeros = np.zeros(4000, np.int32)
    (found,) = measure([point.policy], third, zeros, "top1", objective)
    assert found.regret < 0.02
    assert found.cost < 9.5


@pytest.fixture(scope="module")
def tiny_policies(coarse: None) -> list[Policy]:
    del coarse
    outputs = tiny.outputs(np.random.default_rng(0), 200)
    return propose(outputs, tiny.labels(200), tiny.GRAPH, "top1", "excess")


def test_there_is_a_policy_for_every_start_and_every_price(tiny_policies: list[Policy]) -> None:
    starts = [policy.start for policy in tiny_policies]
    assert starts == [answer for answer in tiny.GRAPH.answers for _ in range(SWEEP)]


def test_every_policy_reads_back_from_its_json(tiny_policies: list[Policy]) -> None:
    for policy in tiny_policies[::10]:
        assert from_json(Policy, to_json(policy), "x") == policy


def test_no_policy_has_a_rule_that_no_image_can_reach(tiny_policies: list[Policy]) -> None:
    for policy in tiny_policies:
        assert {rule.answer for rule in policy.rules} <= set(policy.reachable(policy.start))
        assert all(rule.actions != (STOP,) for rule in policy.rules)


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_does_worse_at_its_price_than_stopping_or_going_to_one_answer(seed: int) -> None:
    outputs, labels = tiny.outputs(np.random.default_rng(seed), 200), tiny.labels(200)
    policies = propose(outputs, labels, tiny.GRAPH, "top1", "excess")
    points = measure(policies, outputs, labels, "top1", "excess")
    singles = [always(tiny.GRAPH, answer) for answer in tiny.GRAPH.answers]
    lost = {p.policy.start: p.regret for p in measure(singles, outputs, labels, "top1", "excess")}
    prices = np.tile(9.5 * np.logspace(3, -1, SWEEP), 3)
    for point, price in zip(points, prices, strict=True):
        start = point.policy.start
        for answer in (start, *tiny.GRAPH.followers(start)):
            bound = tiny.GRAPH.cost((start, answer)) + price * lost[answer]
            assert point.cost + price * point.regret <= bound + 1e-9


def test_lower_prices_give_bolder_policies() -> None:
    fit, zeros = two(0, "calibrated"), np.zeros(600, np.int32)
    policies = propose(fit, zeros, TWO, "top1", "excess")[:SWEEP]
    points = measure(policies, fit, zeros, "top1", "excess")
    assert points[0].cost == max(point.cost for point in points)
    assert points[-1].cost == min(point.cost for point in points) == 1.0


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_the_same_data_gives_the_same_policies(metric: Metric) -> None:
    outputs = tiny.outputs(np.random.default_rng(0), 60)
    first, again = (propose(outputs, tiny.labels(60), tiny.GRAPH, metric, "loss") for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    "graph",
    [
        StageGraph((Stage("cheap", 0.0, answers=True), Stage("full", 0.0, answers=True)), "ms"),
        StageGraph((Stage("cheap", 3.0, answers=True), Stage("full", 3.0, answers=True)), "ms"),
    ],
    ids=["free", "equal"],
)
def test_answers_of_equal_cost_are_each_started_from_and_stopped_at(graph: StageGraph) -> None:
    policies = propose(two(0, "confident"), np.zeros(600, np.int32), graph, "top1", "excess")
    assert set(policies) == {always(graph, "cheap"), always(graph, "full")}


def test_one_answer_gives_one_policy() -> None:
    graph = StageGraph((Stage("full", 3.0, answers=True),), "ms")
    policies = propose(two(0, "perfect"), np.zeros(600, np.int32), graph, "top1", "excess")
    assert set(policies) == {always(graph, "full")}


def test_an_edge_given_twice_is_fitted_once() -> None:
    graph = replace(TWO, edges=(("cheap", "full"), ("cheap", "full")))
    assert fitted(graph, two(0, "confident"), two(1, "confident"), 0.01).cost < 9


def test_a_rule_looks_only_at_answers_on_every_trail_to_it() -> None:
    stages = tuple(Stage(name, float(cost), answers=True) for cost, name in enumerate("abcd"))
    a, b, c = chain(0, 300).values()
    outputs = {"a": a, "b": a, "c": b, "d": c}
    policies = propose(outputs, np.zeros(300, np.int32), StageGraph(stages, "ms"), "top1", "excess")
    seen = {
        feature.answer
        for policy in policies
        for rule in policy.rules
        for feature in rule.features
        if (policy.start, rule.answer) == ("a", "c")
    }
    assert seen == {"a", "c"}


@pytest.mark.parametrize(("k", "margin"), [(1, False), (2, True)])
def test_confidences_have_a_margin_where_there_are_two_classes(k: int, margin: bool) -> None:  # noqa: FBT001
    outputs = {"a": two(0, "perfect")["full"].top(k)}
    kinds = ["entropy", "max_probability", *(["margin"] if margin else [])]
    assert confidences(["a"], outputs) == tuple(Feature("a", kind) for kind in kinds)
