import proposals
import pytest

from policy import fit_msdnet
from policy.fit_pabee import propose


@pytest.mark.parametrize("promise", proposals.CHECKS)
def test_it_keeps_what_every_method_promises(promise: proposals.Check) -> None:
    promise(propose)


def test_every_rule_looks_at_one_score() -> None:
    rules = [rule for policy in propose(proposals.problem()) for rule in policy.rules]
    assert {feature.kind for rule in rules for feature in rule.features} == {"vote"}
    assert max(len(rule.features) for rule in rules) == 1


def test_a_vote_allows_only_a_few_different_policies() -> None:
    assert len(propose(proposals.problem())) < len(fit_msdnet.propose(proposals.problem())) / 4
