import itertools

import numpy as np
import proposals
import pytest

from policy import fit_msdnet
from policy.choose import within_budget
from policy.evaluate import measure
from policy.fit_search import propose, sums
from policy.fit_shares import Score, candidate, scored


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


@pytest.mark.parametrize("score", ["max_probability", "entropy", "vote"])
@pytest.mark.parametrize("chain", [("c",), ("b", "c"), ("a", "b", "c")])
def test_sums_over_a_histogram_equal_one_replay_after_the_other(
    score: Score, chain: tuple[str, ...]
) -> None:
    given = scored(proposals.problem(120), chain, score)
    cuts = [
        np.concatenate([[-np.inf], np.quantile(scores, [0.2, 0.5, 0.8]), [np.inf]])
        for scores in given.scores[:, :-1].T
    ]
    cost, lost = sums(given, cuts)
    assert cost.shape == lost.shape == tuple(5 for _ in chain[1:])
    for place in itertools.product(*(range(5) for _ in chain[1:])):
        thresholds = [levels[at] for levels, at in zip(cuts, place, strict=True)]
        found = candidate(given, np.array([*thresholds, -np.inf]))
        assert cost[place] == pytest.approx(found.cost)
        assert lost[place] == pytest.approx(found.regret)


def test_a_candidate_found_in_the_histogram_replays_to_the_same_point() -> None:
    problem = proposals.problem(500)
    points = measure(propose(problem), problem)
    costs, regrets = ([getattr(point, name) for point in points] for name in ("cost", "regret"))
    assert (np.diff(costs[1:]) < 0).all()
    assert (np.diff(regrets[1:]) > 0).all()


@pytest.mark.parametrize("budget", [2.0, 3.0, 4.0, 6.0])
def test_searched_shares_lose_no_more_than_geometric_ones(budget: float) -> None:
    problem = proposals.problem(2000)
    searched, geometric = (
        within_budget(
            [point for point in measure(method(problem), problem) if point.cost <= budget],
            budget,
            0,
        )
        for method in (propose, fit_msdnet.propose)
    )
    assert searched.regret <= geometric.regret + 2e-3


def test_nothing_that_costs_more_than_the_full_network_is_proposed() -> None:
    problem = proposals.problem()
    assert max(point.cost for point in measure(propose(problem), problem)) == 8.0
