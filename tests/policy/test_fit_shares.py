from dataclasses import replace

import numpy as np
import proposals
import pytest

from policy.eenet_thresholds import thresholds_by_share
from policy.evaluate import measure
from policy.fit_shares import (
    Score,
    candidate,
    cuts_at_quantiles,
    geometric_shares,
    propose_geometric,
    scored,
    scored_chains,
)
from policy.rules import STOP, always
from policy.simulate import simulate

CHAIN = ("a", "b", "c")
SCORES: list[Score] = ["max_probability", "entropy", "vote"]


def test_geometric_shares_have_one_ratio_and_sum_to_one() -> None:
    shares = geometric_shares(4, 0.5)
    assert shares.sum() == pytest.approx(1)
    assert (shares[1:] / shares[:-1]).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("score", ["max_probability", "entropy"])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])
def test_the_asked_share_of_the_fit_part_leaves_at_each_answer(score: Score, ratio: float) -> None:
    problem = proposals.problem(1000)
    given, shares = scored(problem, CHAIN, score), geometric_shares(3, ratio)
    routes = simulate(given.policy(thresholds_by_share(given.scores, shares)), problem.outputs)
    found = dict(zip(routes.trails, np.bincount(routes.trail_of) / 1000, strict=True))
    assert [found[CHAIN[: end + 1]] for end in range(3)] == pytest.approx(shares, abs=2 / 1000)


def test_those_who_leave_are_the_surest() -> None:
    problem = proposals.problem(1000)
    given = scored(problem, CHAIN, "entropy")
    thresholds = thresholds_by_share(given.scores, np.array([0.3, 0.3, 0.4]))
    routes = simulate(given.policy(thresholds), problem.outputs)
    left = routes.trail_of == routes.trails.index(("a",))
    entropy = problem.outputs["a"].entropy
    assert entropy[left].max() < entropy[~left].min()


def test_a_vote_at_the_first_answer_lets_all_leave_or_nobody() -> None:
    problem = proposals.problem(1000)
    given = scored(problem, CHAIN, "vote")
    for share, leaving in ((0.3, {3.0, 11.0}), (0.7, {1.5})):
        thresholds = thresholds_by_share(given.scores, np.array([share, 0.0, 1 - share]))
        cost = simulate(given.policy(thresholds), problem.outputs).cost
        assert set(cost.tolist()) <= leaving | {11.5, 3.5}


@pytest.mark.parametrize("score", SCORES)
def test_a_candidate_costs_and_loses_what_its_policy_does(score: Score) -> None:
    problem = proposals.problem(500)
    for given in scored_chains(problem, score):
        for ratio in (0.1, 1.0, 5.0):
            shares = geometric_shares(len(given.chain), ratio)
            found = candidate(given, thresholds_by_share(given.scores, shares))
            (point,) = measure([found.policy()], problem)
            assert point.cost == pytest.approx(found.cost, abs=1e-12)
            assert point.regret == pytest.approx(found.regret, abs=1e-12)


def test_where_nobody_leaves_the_rule_looks_at_nothing_and_where_all_do_there_is_none() -> None:
    given = scored(proposals.problem(), CHAIN, "vote")
    policy = given.policy(np.array([np.inf, -np.inf, -np.inf]))
    (rule,) = policy.rules
    assert (rule.actions, rule.features) == (("b",), ())
    policy = given.policy(np.array([np.inf, 0.6, -np.inf]))
    assert [rule.actions for rule in policy.rules] == [("b",), (STOP, "c")]


def test_cuts_lie_between_scores_and_no_more_of_them_than_asked() -> None:
    scores = np.random.default_rng(0).integers(0, 50, 1000).astype(float)
    for count in (1, 5, 200):
        cuts = cuts_at_quantiles(scores, count)
        assert 0 < len(cuts) <= min(count, 49)
        assert (np.diff(cuts) > 0).all()
        assert not np.isin(cuts, scores).any()
    assert len(cuts_at_quantiles(np.ones(10), 5)) == 0


def test_what_another_policy_beats_is_left_out() -> None:
    problem = proposals.problem()
    same = replace(problem, outputs=dict.fromkeys("abc", problem.outputs["a"]))
    policies = propose_geometric(same, "entropy")
    assert policies == [always(same.graph, "c"), always(same.graph, "a")]
