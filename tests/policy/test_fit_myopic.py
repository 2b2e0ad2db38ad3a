import proposals
import pytest

from policy.fit_myopic import propose


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_all_answers_of_a_policy_have_the_same_threshold() -> None:
    longer = [policy for policy in propose(proposals.problem(1000)) if len(policy.rules) > 1]
    assert longer
    for policy in longer:
        assert len({(rule.weights, rule.bias) for rule in policy.rules}) == 1
