import numpy as np

from policy.frontier import undominated


def test_points_that_another_beats_in_both_are_left_out() -> None:
    kept = undominated([1.0, 2.0, 3.0, 2.5], [0.3, 0.2, 0.0, 0.25])
    assert kept.tolist() == [2, 1, 0]


def test_of_equal_points_the_first_is_kept() -> None:
    assert undominated([1.0, 1.0, 2.0], [0.1, 0.1, 0.1]).tolist() == [0]


def test_costs_fall_and_regrets_rise_along_a_frontier() -> None:
    cost, regret = np.random.default_rng(0).random((2, 500))
    kept = undominated(cost, regret)
    assert (np.diff(cost[kept]) < 0).all()
    assert (np.diff(regret[kept]) > 0).all()
    for point in range(500):
        assert ((cost[kept] <= cost[point]) & (regret[kept] <= regret[point])).any()


def test_no_points_have_no_frontier() -> None:
    assert undominated([], []).tolist() == []
