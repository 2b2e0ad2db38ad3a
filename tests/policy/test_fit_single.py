import proposals
import pytest

from policy.fit_single import propose
from policy.rules import always


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_every_network_is_proposed_by_falling_cost() -> None:
    policies = propose(proposals.problem())
    assert policies == [always(proposals.GRAPH, answer) for answer in ("c", "b", "a")]
