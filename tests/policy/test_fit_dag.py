from collections.abc import Iterator
from dataclasses import replace

import known
import numpy as np
import proposals
import pytest
import tiny

from policy import search
from policy.choose import within_loss
from policy.evaluate import Point, measure
from policy.fit_dag import propose
from policy.graph import Stage, StageGraph
from policy.losses import Metric, Objective
from policy.problem import Problem
from policy.rules import STOP, Policy, always
from policy.schema import from_json, to_json
from policy.simulate import simulate

EXIT, SMALL, BIG = tiny.GRAPH.answers


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """Five prices a decade: as good a test, and faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "STEPS_PER_DECADE", 5)
        yield


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(
    promise: proposals.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STEPS_PER_DECADE", 2)
    promise(propose)


def fitted(fit: Problem, other: Problem, max_loss: float, objective: Objective = "excess") -> Point:
    """Propose on some images, choose on others."""
    policies = propose(replace(fit, objective=objective))
    return within_loss(measure(policies, replace(other, objective=objective)), max_loss)


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_a_cheap_answer_that_is_right_when_confident_is_kept_when_confident(
    objective: Objective,
) -> None:
    other = known.two(1, "confident", 2000)
    point = fitted(known.two(0, "confident"), other, 0.005, objective)
    right = (other.outputs["cheap"].classes[:, 0] == 0).mean()
    assert isinstance(point.policy, Policy)
    assert point.policy.start == "cheap"
    assert point.cost == pytest.approx(1 + 10 * (1 - right), rel=0.03)


def test_a_useless_cheap_answer_never_ends_a_trail() -> None:
    fit, other = known.two(0, "useless"), known.two(1, "useless")
    assert fitted(fit, other, 0.01) == Point(always(known.TWO, "full"), 10.0, 0.0)
    stopping = [policy for policy in propose(fit) if policy.start == "cheap"]
    for policy in stopping:
        trails = simulate(policy, other.outputs).trails
        assert trails in ((("cheap", "full"),), (("cheap",),))


def test_a_cheap_answer_that_is_always_right_ends_every_trail() -> None:
    fit, other = known.two(0, "perfect"), known.two(1, "perfect")
    assert fitted(fit, other, 0.0) == Point(always(known.TWO, "cheap"), 1.0, 0.0)
    assert set(propose(fit)) == {always(known.TWO, "cheap"), always(known.TWO, "full")}


def test_three_answers_in_a_chain_are_each_used_for_the_images_they_suffice_for() -> None:
    other = known.chain(1)
    point = fitted(known.chain(0), other, 0.01)
    # a alone 1; a, t, b 3; a jump from a over b to c 10
    assert point.cost == pytest.approx((1 + 3 + 10) / 3, rel=0.08)
    trails = set(simulate(point.policy, other.outputs).trails)
    assert {("a",), ("a", "b"), ("a", "c")} <= trails


def test_an_answer_that_adds_nothing_is_jumped_over() -> None:
    other = known.chain(1, useless=True)
    point = fitted(known.chain(0, useless=True), other, 0.01)
    assert point.cost == pytest.approx((1 + 2 * 10) / 3, rel=0.03)
    routes = simulate(point.policy, other.outputs)
    shares = np.bincount(routes.trail_of) / 900
    taken = dict(zip(routes.trails, shares.tolist(), strict=True))
    assert taken.get(("a", "c")) == pytest.approx(2 / 3, abs=0.03)


def test_without_the_jump_the_middle_answer_is_passed_through() -> None:
    graph = replace(known.CHAIN, edges=(("a", "b"), ("b", "c")))
    fit, other = (replace(known.chain(seed, useless=True), graph=graph) for seed in (0, 1))
    point = fitted(fit, other, 0.01)
    assert ("a", "c") not in simulate(point.policy, other.outputs).trails
    assert point.regret <= 0.01


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_a_policy_that_loses_one_percent_is_cheaper_on_images_nobody_saw(
    objective: Objective,
) -> None:
    fit, other = (known.two(seed, "calibrated", 2000) for seed in (0, 1))
    point = fitted(fit, other, 0.01, objective)
    third = replace(known.two(2, "calibrated", 4000), objective=objective)
    (found,) = measure([point.policy], third)
    assert found.regret < 0.02
    assert found.cost < 9.5


@pytest.fixture(scope="module")
def tiny_policies(coarse: None) -> list[Policy]:
    del coarse
    return propose(tiny.problem(0, 200))


def test_the_full_network_comes_first_and_every_answer_is_there(
    tiny_policies: list[Policy],
) -> None:
    graph = tiny_policies[0].graph
    assert tiny_policies[0] == always(graph, BIG)
    assert {always(graph, name) for name in (SMALL, EXIT)} < set(tiny_policies)


def test_every_policy_reads_back_from_its_json(tiny_policies: list[Policy]) -> None:
    for policy in tiny_policies[::10]:
        assert from_json(Policy, to_json(policy), "x") == policy


def test_no_policy_has_a_rule_that_no_image_can_reach(tiny_policies: list[Policy]) -> None:
    for policy in tiny_policies:
        assert {rule.answer for rule in policy.rules} <= set(policy.reachable(policy.start))
        assert all(rule.actions != (STOP,) for rule in policy.rules)


@pytest.mark.parametrize("seed", range(3))
def test_at_every_price_some_policy_is_as_good_as_stopping_or_going_to_one_answer(
    seed: int,
) -> None:
    problem = tiny.problem(seed, 200)
    points = measure(propose(problem), problem)
    lost = {name: lost.mean() for name, lost in problem.lost.items()}
    for price in search.prices_of(problem.graph):
        best = min(point.cost + price * point.regret for point in points)
        for start in tiny.GRAPH.answers:
            for answer in (start, *tiny.GRAPH.followers(start)):
                bound = tiny.GRAPH.cost((start, answer)) + price * lost[answer]
                assert best <= bound + 1e-9


def test_a_sweep_from_safe_to_bold_ends_with_the_cheapest() -> None:
    fit = known.two(0, "calibrated")
    points = measure(propose(fit), fit)
    assert points[0].cost == 10.0
    assert min(point.cost for point in points) == 1.0
    rules = [point for point in points if point.policy.arms[0].rules]
    assert rules[0].cost == max(point.cost for point in rules)


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_the_same_data_gives_the_same_policies(metric: Metric) -> None:
    problem = replace(tiny.problem(0, 60), metric=metric, objective="loss")
    assert propose(problem) == propose(problem)


@pytest.mark.parametrize("cost", [0.0, 3.0], ids=["free", "equal"])
def test_answers_of_equal_cost_are_each_started_from_and_stopped_at(cost: float) -> None:
    stages = (Stage("cheap", cost, answers=True), Stage("full", cost, answers=True))
    graph = StageGraph(stages, "ms")
    policies = propose(replace(known.two(0, "confident"), graph=graph))
    assert set(policies) == {always(graph, "cheap"), always(graph, "full")}


def test_one_answer_gives_one_policy() -> None:
    graph = StageGraph((Stage("full", 3.0, answers=True),), "ms")
    assert propose(replace(known.two(0, "perfect"), graph=graph)) == [always(graph, "full")]


def test_an_edge_given_twice_is_fitted_once() -> None:
    graph = replace(known.TWO, edges=(("cheap", "full"), ("cheap", "full")))
    fit, other = (replace(known.two(seed, "confident"), graph=graph) for seed in (0, 1))
    assert fitted(fit, other, 0.01).cost < 9
