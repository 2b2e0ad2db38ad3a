import numpy as np
import pytest

from policy.eenet_thresholds import exit_of_each, thresholds_by_share, thresholds_for_budget

COSTS = np.array([1.0, 2.0, 4.0])


def test_the_highest_scored_leave_first_and_the_others_go_on() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.9, 0], [0.2, 0.8, 0], [0.1, 0.3, 0]])

    found = thresholds_by_share(scores, np.array([0.5, 0.25, 0.25]))

    assert found == pytest.approx([0.5, 0.55, -np.inf])
    assert exit_of_each(scores, found).tolist() == [0, 0, 1, 2]


def test_equal_scores_leave_together_whichever_is_nearer_to_the_share() -> None:
    scores = np.array([[0.5, 0.0]] * 3 + [[0.1, 0.0]] * 7)

    assert thresholds_by_share(scores, np.array([0.2, 0.8]))[0] == pytest.approx(0.3)
    assert thresholds_by_share(scores, np.array([0.1, 0.9]))[0] == np.inf
    assert thresholds_by_share(scores, np.array([0.9, 0.1]))[0] == -np.inf


def test_where_nobody_is_left_everything_may_leave() -> None:
    scores = np.zeros((5, 3))

    found = thresholds_by_share(scores, np.array([1.0, 0.0, 0.0]))

    assert found[0] == -np.inf
    assert exit_of_each(scores, found).tolist() == [0] * 5


@pytest.mark.parametrize("shares", [(0.3, 0.3, 0.4), (0.01, 0.01, 0.98), (0.98, 0.01, 0.01)])
@pytest.mark.parametrize("budget", [1.01, 1.5, 2.5, 3.99])
def test_the_budget_is_met_whatever_shares_it_starts_from(
    shares: tuple[float, ...], budget: float
) -> None:
    scores = np.random.default_rng(0).normal(size=(5000, 3))

    found = thresholds_for_budget(scores, np.array(shares), COSTS, budget)

    assert COSTS[exit_of_each(scores, found)].mean() == pytest.approx(budget, rel=1e-3)


def test_a_budget_that_no_policy_can_spend_gets_the_nearest_that_one_can() -> None:
    scores = np.random.default_rng(0).normal(size=(100, 3))
    even = np.full(3, 1 / 3)

    cheap = thresholds_for_budget(scores, even, COSTS, 0.5)
    dear = thresholds_for_budget(scores, even, COSTS, 9.0)
    free = thresholds_for_budget(scores, even, np.zeros(3), 0.0)

    assert set(exit_of_each(scores, cheap).tolist()) == {0}
    assert set(exit_of_each(scores, dear).tolist()) == {2}
    assert len(free) == 3


def test_of_constant_scores_all_or_none_leave() -> None:
    scores = np.full((100, 3), 0.7)

    found = thresholds_for_budget(scores, np.full(3, 1 / 3), COSTS, 1.9)

    assert COSTS[exit_of_each(scores, found)].mean() in (1, 2, 4)
