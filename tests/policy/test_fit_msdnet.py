import proposals
import pytest

from policy.fit_msdnet import propose


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_every_rule_looks_at_one_score() -> None:
    rules = [rule for policy in propose(proposals.problem()) for rule in policy.rules]
    assert {feature.kind for rule in rules for feature in rule.features} == {"max_probability"}
    assert max(len(rule.features) for rule in rules) == 1
