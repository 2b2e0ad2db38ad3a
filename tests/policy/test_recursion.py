import itertools
from dataclasses import replace

import known
import numpy as np
import pytest
import tiny

from policy.answers import answers_from_logits
from policy.evaluate import Point, measure
from policy.graph import Stage, StageGraph
from policy.losses import Objective
from policy.means import Mean
from policy.problem import Problem
from policy.recursion import sweep
from policy.rules import Policy, Rule, always
from policy.simulate import simulate
from policy.walk import Solution, Walk

EXIT, SMALL, BIG = tiny.GRAPH.answers
PRICES = [400.0, 40.0, 20.0, 8.0, 2.0, 0.5]
FOUR = StageGraph(
    (
        Stage("trunk", 1.0),
        Stage("a", 0.5, ("trunk",), answers=True),
        Stage("deep", 2.0, ("trunk",)),
        Stage("b", 0.5, ("deep",), answers=True),
        Stage("c", 4.0, answers=True),
        Stage("d", 4.5, ("c", "deep"), answers=True),
    ),
    "usd",
)
"""Two exits on one trunk, a second network, and an answer made from both: many ways to `d`."""


def four(seed: int, n: int = 300) -> Problem:
    """Random answers, the dearer the better."""
    rng, labels = np.random.default_rng(seed), tiny.labels(n)
    outputs = {}
    for strength, name in enumerate(FOUR.answers, start=1):
        logits = rng.normal(size=(n, tiny.CLASSES))
        logits[np.arange(n), labels] += strength
        outputs[name] = answers_from_logits(logits, None)
    return Problem(FOUR, [f"k{i}" for i in range(n)], labels, outputs)


def solved(
    problem: Problem, answers: tuple[str, ...] | None = None, mean: Mean | None = None
) -> list[tuple[float, Solution, Point]]:
    """For each price, the solution and what it really costs and loses."""
    found = list(sweep(Walk(problem, answers or problem.graph.answers, mean), PRICES))
    points = measure([solution.policy for solution in found], problem)
    return list(zip(PRICES, found, points, strict=True))


@pytest.mark.parametrize("mean", [None, Mean((("big", 3.0),), 4)], ids=["last", "mean"])
@pytest.mark.parametrize("objective", ["excess", "loss"])
@pytest.mark.parametrize("seed", range(2))
def test_the_risk_is_what_the_policy_really_costs_and_loses(
    seed: int, objective: Objective, mean: Mean | None
) -> None:
    problem = replace(tiny.problem(seed, 300), objective=objective)
    for price, solution, point in solved(problem, mean=mean):
        assert solution.policy.mean == (mean if solution.policy.rules else None)
        assert solution.risk == pytest.approx(point.cost + price * point.regret)


@pytest.mark.parametrize("seed", range(3))
def test_shared_stages_are_paid_once_on_every_way(seed: int) -> None:
    problem, taken = four(seed), set()
    for price, solution, point in solved(problem):
        assert solution.risk == pytest.approx(point.cost + price * point.regret)
        routes = simulate(solution.policy, problem.outputs)
        for trail, cost in zip(routes.trails, (FOUR.cost(t) for t in routes.trails), strict=True):
            assert routes.cost[routes.trail_of == routes.trails.index(trail)] == pytest.approx(cost)
        taken |= set(routes.trails)
    assert {len(trail) for trail in taken} >= {1, 2, 3}


def fixed(graph: StageGraph, trail: tuple[str, ...], mean: Mean | None) -> Policy:
    """The policy that takes one way for every image."""
    steps = itertools.pairwise(trail)
    rules = tuple(Rule(answer, (after,), ((),), (0.0,)) for answer, after in steps)
    return Policy(graph, trail[0], rules, mean)


@pytest.mark.parametrize("mean", [None, Mean((("small", 2.0),), 4)], ids=["last", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_no_way_that_is_the_same_for_every_image_has_a_lower_risk(
    seed: int, mean: Mean | None
) -> None:
    problem = tiny.problem(seed, 200)
    ways = [(EXIT,), (EXIT, SMALL), (EXIT, BIG), (EXIT, SMALL, BIG)]
    points = measure([fixed(problem.graph, way, mean) for way in ways], problem)
    for price, solution, _ in solved(problem, mean=mean):
        for point in points:
            assert solution.risk <= point.cost + price * point.regret + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_with_several_ways_to_an_answer_stopping_or_jumping_is_no_better(seed: int) -> None:
    """The rule at `c` serves a > c, b > c and a > b > c: it need not be the best for each."""
    problem = four(seed)
    ways = [("a",), ("a", "d")]
    points = measure([fixed(FOUR, way, None) for way in ways], problem)
    for price, solution, _ in solved(problem):
        for point in points:
            assert solution.risk <= point.cost + price * point.regret + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_a_threshold_that_separates_right_from_wrong_is_found(seed: int) -> None:
    problem = known.two(seed, "confident", 2000)
    right = (problem.outputs["cheap"].classes[:, 0] == 0).mean()
    best = 1 + 10 * (1 - right)
    (solution,) = sweep(Walk(problem, ("cheap", "full")), [40.0])
    assert best <= solution.risk <= 1.1 * best
    assert simulate(solution.policy, problem.outputs).cost.mean() == pytest.approx(best, rel=0.1)


@pytest.mark.parametrize("price", [9.0, 10.0])
def test_a_loss_that_costs_no_more_than_going_on_is_borne(price: float) -> None:
    (solution,) = sweep(Walk(known.two(0, "confident"), ("cheap", "full")), [price])
    assert solution.policy == always(known.TWO, "cheap")


def test_three_answers_are_each_used_for_the_images_they_suffice_for() -> None:
    problem = known.chain(0)
    (solution,) = sweep(Walk(problem, ("a", "b", "c")), [30.0])
    best = (1 + 3 + 10) / 3  # a alone 1; a, t, b 3; a jump from a over b to c 10
    assert solution.risk <= 1.2 * best
    trails = set(simulate(solution.policy, problem.outputs).trails)
    assert {("a",), ("a", "b"), ("a", "c")} <= trails


def test_without_the_jump_the_middle_answer_is_passed_through() -> None:
    problem = known.chain(0, useless=True)
    graph = replace(known.CHAIN, edges=(("a", "b"), ("b", "c")))
    (solution,) = sweep(Walk(replace(problem, graph=graph), ("a", "b", "c")), [60.0])
    trails = set(simulate(solution.policy, problem.outputs).trails)
    assert {("a",), ("a", "b", "c")} <= trails
    assert ("a", "c") not in trails
    assert solution.risk <= 1.2 * (1 + 2 * 12) / 3


def test_answers_that_are_not_chosen_between_are_not_used() -> None:
    for _, solution, _ in solved(tiny.problem(0, 100), (EXIT, BIG)):
        assert set(solution.policy.reachable(EXIT)) <= {EXIT, BIG}


@pytest.mark.parametrize("seed", range(2))
def test_a_dearer_loss_is_never_met_with_a_cheaper_policy_where_rules_are_constant(
    seed: int,
) -> None:
    problem = tiny.problem(seed, 12)  # fewer images than features
    costs = [point.cost for _, _, point in solved(problem)]
    assert costs == sorted(costs, reverse=True)


def test_the_cheapest_family_is_taken_with_its_time_counted() -> None:
    problem = replace(four(0), graph=replace(FOUR, unit="gmac"))
    for price, solution, point in solved(problem):
        decided = sum(len(rule.features) for rule in solution.policy.rules)
        assert solution.risk >= point.cost + price * point.regret - 1e-12
        assert solution.risk - (point.cost + price * point.regret) <= (decided + 99) / 1e9


def test_a_rule_that_takes_long_is_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.walk.policy_time", lambda *_: 1e3)
    for _, solution, _ in solved(tiny.problem(0, 200)):
        assert all(len(rule.actions) == 1 for rule in solution.policy.rules)


def test_the_own_confidences_are_enough_where_more_says_nothing() -> None:
    problem = known.two(0, "confident")
    (solution,) = sweep(Walk(problem, ("cheap", "full")), [40.0])
    assert {f.answer for rule in solution.policy.rules for f in rule.features} == {"cheap"}


@pytest.mark.parametrize("problem", [known.chain(0), tiny.problem(1, 300)], ids=["known", "tiny"])
def test_a_sweep_is_as_good_as_each_price_alone(problem: Problem) -> None:
    prices = [5000.0, 400.0, 100.0, 60.0, 40.0, 20.0]
    walk = Walk(problem, problem.graph.answers)
    for price, solution in zip(prices, sweep(walk, prices), strict=True):
        (alone,) = sweep(walk, [price])
        assert solution.risk <= 1.03 * alone.risk
