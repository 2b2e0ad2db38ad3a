"""Every way through some answers of a graph: its trails, what stopping on each loses, its rules.

What the learned methods share. They differ in how they make scores of actions from the evidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.cost_sensitive import Linear, Standard, standardise
from policy.evidence import confidences, evidence
from policy.features import Feature, Seen, feature_values
from policy.losses import regret
from policy.means import Mean
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule

_MS_PER_FEATURE = 1e-5  # benchmarks/scale.py: 9 M decisions a second by twelve features each

Trail = tuple[str, ...]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """Rules that look at these features; `time` is what one decision costs (the paper's tau).

    `given` holds the feature values of all images once for every trail, one trail after the other.
    """

    features: tuple[Feature, ...]
    given: Standard
    time: float


@dataclass(frozen=True)
class Node:
    """An answer, where it may lead, every trail to it, and the families of rules to choose from."""

    answer: str
    followers: tuple[str, ...]
    trails: tuple[Trail, ...]
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Solution:
    """The policy for one lambda with what it makes of the images it was fitted on.

    `risk` is the mean of cost + lambda * regret, which is to be small.
    """

    policy: Policy
    risk: float


class Walk:
    """Everything of a fit that does not depend on lambda, for some answers of a graph."""

    def __init__(self, problem: Problem, answers: Sequence[str], mean: Mean | None = None) -> None:
        """`answers` are those to choose between; every trail starts at the first of them."""
        self.problem = problem
        self.graph = problem.graph
        self.start = answers[0]
        self.mean = mean
        order = [name for name in self.graph.reachable(self.start) if name in answers]
        self._followers = {
            name: tuple(a for a in self.graph.followers(name) if a in answers) for name in order
        }
        self._trails: dict[str, list[Trail]] = {name: [] for name in order}
        for trail in self._walk((self.start,)):
            self._trails[trail[-1]].append(trail)
        self.lost = {trail: self._regret(trail) for name in order for trail in self._trails[name]}
        self.nodes = [self._node(name) for name in reversed(order) if self._trails[name]]

    def policy(self, rules: Sequence[Rule | None]) -> Policy:
        """Those of the rules that some image can meet; they come deepest first."""
        met = {self.start}
        kept = []
        for rule in reversed(rules):
            if rule is not None and rule.answer in met:
                met |= set(rule.actions)
                kept.append(rule)
        return Policy(self.graph, self.start, tuple(kept), self.mean if kept else None)

    def _walk(self, trail: Trail) -> Iterator[Trail]:
        yield trail
        for after in self._followers[trail[-1]]:
            yield from self._walk((*trail, after))

    def _seen(self, trail: Trail) -> dict[str, Answers]:
        return {answer: self.problem.outputs[answer] for answer in trail}

    def _regret(self, trail: Trail) -> Vector:
        if self.mean is None or len(trail) == 1:
            return self.problem.lost[trail[-1]]
        given, problem = self.mean.of(self._seen(trail)), self.problem
        full = problem.outputs[self.graph.full]
        return regret(given, full, problem.labels, problem.metric, problem.objective)

    def _node(self, answer: str) -> Node:
        trails = tuple(self._trails[answer])
        common = tuple(name for name in trails[0] if all(name in trail for trail in trails))
        outputs = self.problem.outputs
        own = tuple(confidences(answer, outputs[answer]))
        families = [own, evidence(common, outputs, self.mean)]
        if not self._followers[answer]:
            families = [()]
        return Node(
            answer,
            self._followers[answer],
            trails,
            tuple(self._family(features, trails) for features in dict.fromkeys(families)),
        )

    def _family(self, features: tuple[Feature, ...], trails: Sequence[Trail]) -> Family:
        values = [feature_values(features, Seen(self._seen(t), self.mean)) for t in trails]
        given = standardise(np.concatenate(values))
        return Family(features, given, policy_time(len(features), self.graph.unit))


def policy_time(features: int, unit: str) -> float:
    """What one decision costs in the unit of a graph's costs: the paper's tau.

    In milliseconds as measured once (`_MS_PER_FEATURE`), not anew in each fit: the same table must
    give the same policy. Multiply-accumulates are counted; in other units (money) it is free.
    """
    match unit:
        case "ms":
            return features * _MS_PER_FEATURE
        case "gmac":
            return features / 1e9
        case _:
            return 0.0


def rule_at(node: Node, family: Family, linear: Linear, taken: NDArray[np.intp]) -> Rule | None:
    """The rule with only the actions that some image takes; None where all images stop.

    `linear` scores STOP and the node's followers, in this order, from standardised features.
    """
    actions = np.unique(taken)
    names = tuple((STOP, *node.followers)[action] for action in actions)
    if names == (STOP,):
        return None
    if len(names) == 1:
        return Rule(node.answer, names, weights=((),), bias=(0.0,))
    own = family.given.original(linear.only(actions))
    return Rule(
        answer=node.answer,
        actions=names,
        weights=tuple(tuple(row) for row in own.weights.tolist()),
        bias=tuple(own.bias.tolist()),
        features=family.features,
    )
