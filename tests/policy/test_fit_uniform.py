import numpy as np
import proposals
import pytest

from policy.evaluate import measure
from policy.fit_uniform import propose
from policy.mixture import Mixture
from policy.simulate import simulate


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_a_mixture_costs_what_its_share_says() -> None:
    given = proposals.problem(4000)
    for routing in propose(given)[::7]:
        if isinstance(routing, Mixture):
            dear, cheap = (given.graph.cost((arm.start,)) for arm in (routing.dear, routing.cheap))
            (point,) = measure([routing], given)
            assert point.cost == pytest.approx(
                routing.share * dear + (1 - routing.share) * cheap, abs=0.03 * (dear - cheap)
            )


def test_what_an_image_looks_like_decides_nothing() -> None:
    given = proposals.problem(300)
    other = {
        name: answers.take(np.arange(300)[::-1].copy()) for name, answers in given.outputs.items()
    }
    routing = next(one for one in propose(given) if isinstance(one, Mixture))
    costs = [simulate(routing, outputs, given.keys).cost for outputs in (given.outputs, other)]
    assert (costs[0] == costs[1]).all()


def test_budgets_between_any_two_neighbours_are_covered() -> None:
    given = proposals.problem(4000)
    costs = np.array([point.cost for point in measure(propose(given), given)])
    assert (np.diff(np.sort(costs)) < 0.6).all()
