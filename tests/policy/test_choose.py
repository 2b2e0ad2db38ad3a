import itertools

import numpy as np
import pytest
import tiny

from policy.choose import within_budget, within_loss
from policy.errors import InputError
from policy.evaluate import Point
from policy.mixture import Mixture
from policy.rules import always

BIG = always(tiny.GRAPH, "big")


def points(*pairs: tuple[float, float]) -> list[Point]:
    """Points of these costs and regrets."""
    return [Point(BIG, cost, regret) for cost, regret in pairs]


def random_points(seed: int) -> list[Point]:
    rng = np.random.default_rng(seed)
    return points(*((rng.integers(9, size=(25, 2)) / 8).tolist()))


def beats(a: Point, b: Point) -> bool:
    no_worse = a.cost <= b.cost and a.regret <= b.regret
    return no_worse and (a.cost, a.regret) != (b.cost, b.regret)


@pytest.mark.parametrize("seed", range(20))
def test_the_cheapest_within_a_loss_is_chosen(seed: int) -> None:
    given = [*random_points(seed), *points((9, 0))]
    chosen = within_loss(given, 0.25)
    assert chosen.regret <= 0.25
    assert chosen.cost == min(p.cost for p in given if p.regret <= 0.25)
    assert not any(beats(p, chosen) for p in given)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_within_a_budget_is_chosen(seed: int) -> None:
    given = [*random_points(seed), *points((0, 1))]
    chosen = within_budget(given, 0.5, seed=1)
    assert chosen.cost <= 0.5
    assert chosen.regret <= min(p.regret for p in given if p.cost <= 0.5)
    assert not any(beats(p, chosen) for p in given)


@pytest.mark.parametrize("seed", range(20))
def test_no_mixture_of_two_policies_that_meets_the_budget_loses_less(seed: int) -> None:
    given = [*random_points(seed), *points((0, 1), (9, 0))]
    chosen = within_budget(given, 0.5, seed=1)
    shares = np.linspace(0, 1, 101)
    for one, other in itertools.product(given, repeat=2):
        cost = one.cost + shares * (other.cost - one.cost)
        regret = one.regret + shares * (other.regret - one.regret)
        assert chosen.regret <= regret[cost <= 0.5].min(initial=2) + 1e-12


def test_a_budget_between_two_policies_is_met_exactly_by_a_share_of_each() -> None:
    small = always(tiny.GRAPH, "small")
    given = [Point(small, 1.0, 0.5), Point(BIG, 5.0, 0.0)]
    chosen = within_budget(given, 2.0, seed=3)
    assert chosen.policy == Mixture(small, BIG, 0.25, 3)
    assert (chosen.cost, chosen.regret) == (2.0, 0.375)


def test_mixtures_are_not_mixed_again() -> None:
    mixture = Mixture(always(tiny.GRAPH, "small"), BIG, 0.5, 3)
    given = [Point(mixture, 1.0, 0.5), Point(BIG, 5.0, 0.0)]
    assert within_budget(given, 2.0, seed=3) is given[0]


def test_a_loss_or_cost_of_exactly_the_limit_is_allowed() -> None:
    (point,) = points((0.5, 0.25))
    assert within_loss([point], 0.25) is within_budget([point], 0.5, 0) is point


def test_a_mean_of_equal_costs_a_last_digit_above_the_budget_is_allowed() -> None:
    (point,) = points((np.nextafter(0.1, 1), 0))
    assert within_budget([point], 0.1, 0) is point
    with pytest.raises(InputError, match="no policy costs at most"):
        within_budget(points((0.1001, 0)), 0.1, 0)


def test_a_loss_that_no_policy_keeps_is_refused() -> None:
    message = r"no policy loses at most 0\.1; the best loses 0\.2\. Allow a larger --max-loss"
    with pytest.raises(InputError, match=message):
        within_loss(points((1, 0.2), (0, 0.5)), 0.1)


def test_a_budget_below_the_cheapest_policy_is_refused() -> None:
    message = r"no policy costs at most 1 per image; the cheapest costs 1\.5\. Allow a larger --bud"
    with pytest.raises(InputError, match=message):
        within_budget(points((2, 0.2), (1.5, 0.5)), 1, 0)
