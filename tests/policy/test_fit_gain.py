import numpy as np
import proposals
import pytest

from policy.fit_gain import propose, sweep
from policy.simulate import simulate
from policy.walk import Walk


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_a_bolder_policy_never_goes_on_where_a_safer_one_stops() -> None:
    given = proposals.problem()
    walk = Walk(given, ("a", "b", "c"))
    stopped = np.zeros(len(given), dtype=bool)
    for solution in sweep(walk, [100.0, 30.0, 10.0, 3.0, 1.0]):  # falling price: ever bolder
        routes = simulate(solution.policy, given.outputs)
        length = np.array([len(trail) for trail in routes.trails])[routes.trail_of]
        assert (length[stopped] == 1).all()
        stopped = length == 1
    assert stopped.any()


def test_what_an_answer_gains_is_learnt_from_the_evidence() -> None:
    given = proposals.problem(4000)
    (solution,) = sweep(Walk(given, ("b", "c")), [40.0])
    routes = simulate(solution.policy, given.outputs)
    went_on = np.array([len(trail) for trail in routes.trails])[routes.trail_of] == 2
    gained = given.lost["b"] - given.lost["c"]
    assert 0.1 < went_on.mean() < 0.9
    assert gained[went_on].mean() > 0.2 > gained[~went_on].mean()
