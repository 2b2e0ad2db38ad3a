"""The cascade that everybody can write: two networks, and a cut on the first one's probability."""

from dataclasses import dataclass

from policy.bundle import read_bundle
from policy.errors import InputError
from policy.features import Feature
from policy.graph import StageGraph
from policy.rules import STOP, Policy, Rule


@dataclass(frozen=True)
class Cut:
    """Images stop at `first` with at least this probability of the best class."""

    first: str
    second: str
    least: float


def cut_policy(graph: StageGraph, cut: Cut) -> Policy:
    """The cut as the product's policy: stop scores p, going on scores the cut."""
    feature = Feature(cut.first, "max_probability")
    rule = Rule(
        answer=cut.first,
        actions=(STOP, cut.second),
        weights=((1.0,), (0.0,)),
        bias=(0.0, cut.least),
        features=(feature,),
    )
    return Policy(graph=graph, start=cut.first, rules=(rule,))


def cut_of(folder: str) -> Cut:
    """The cut in a bundle that `cut_policy` made."""
    (arm,) = read_bundle(folder).policy.arms
    if len(arm.rules) != 1 or arm.mean or arm.rules[0].weights != ((1.0,), (0.0,)):
        raise InputError(f"{folder}: not the policy of one cut; wanted what cut_policy makes")
    rule = arm.rules[0]
    return Cut(rule.answer, rule.actions[1], rule.bias[1])
