"""Early exit and network selection by the recursion of Bolukbasi et al. 2017.

Deepest answer first: at each answer, learn to choose the cheaper of stopping there and going to one
of its followers, where going on costs what the followers' own, already fitted rules make of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.cost_sensitive import Linear, fit_linear
from policy.features import Feature, feature_values
from policy.graph import StageGraph, on_every_trail
from policy.losses import Metric, Objective, regrets
from policy.rules import STOP, Policy, Rule

LAMBDAS_PER_DECADE = 24
"""Steps of the sweep over lambda, the price of one lost answer in units of cost."""


@dataclass(frozen=True)
class _Node:
    """An answer, its followers, the answers on every trail to it, and what its rule looks at."""

    answer: str
    followers: tuple[str, ...]
    common: tuple[str, ...]
    features: tuple[Feature, ...]
    values: NDArray[np.float64]


def propose(
    outputs: Mapping[str, Answers],
    labels: NDArray[np.int32],
    graph: StageGraph,
    metric: Metric,
    objective: Objective,
) -> list[Policy]:
    """Policies for every answer to start from and every lambda of the sweep (section 3).

    `outputs` holds each answer of the graph for the same n images, `labels` [n] their classes.
    """
    lost = regrets(outputs, graph.full, labels, metric, objective)
    top = graph.cost((graph.full,)) or 1.0
    lambdas = top * np.logspace(3, -1, 4 * LAMBDAS_PER_DECADE + 1)
    policies = []
    for start in graph.answers:
        nodes = _nodes(graph, start, outputs)
        policies += [_fit(graph, start, nodes, lost, float(price)) for price in lambdas]
    return policies


def _nodes(graph: StageGraph, start: str, outputs: Mapping[str, Answers]) -> list[_Node]:
    """The answers reachable from `start`, deepest first."""
    reachable = graph.reachable(start)
    common = on_every_trail(reachable, graph.followers)
    nodes = []
    for answer in reversed(reachable):
        seen = tuple(other for other in reachable if other in common[answer])
        features = confidences(seen, outputs)
        trail = {other: outputs[other] for other in seen}
        values = feature_values(features, trail)
        nodes.append(_Node(answer, graph.followers(answer), seen, features, values))
    return nodes


def confidences(answers: Sequence[str], outputs: Mapping[str, Answers]) -> tuple[Feature, ...]:
    """What a rule looks at: entropy, the best probability, and its margin where k > 1."""
    found = []
    for answer in answers:
        found += [Feature(answer, "entropy"), Feature(answer, "max_probability")]
        if outputs[answer].classes.shape[1] > 1:
            found.append(Feature(answer, "margin"))
    return tuple(found)


def _fit(
    graph: StageGraph,
    start: str,
    nodes: Sequence[_Node],
    lost: Mapping[str, NDArray[np.float64]],
    price: float,
) -> Policy:
    """The recursion at one lambda; `to_go` is each image's realised cost below an answer."""
    to_go: dict[str, NDArray[np.float64]] = {}
    rules = []
    for node in nodes:
        stop = price * lost[node.answer]
        going = [graph.step_cost(node.common, after) + to_go[after] for after in node.followers]
        costs = np.stack([stop, *going], axis=1)
        linear = fit_linear(node.values, costs)
        taken = linear.decide(node.values)
        to_go[node.answer] = costs[np.arange(len(stop)), taken]
        actions = [(STOP, *node.followers)[number] for number in np.unique(taken)]
        if actions != [STOP]:
            rules.append(_rule(node, actions, linear.only(np.unique(taken))))
    reached = _reached(start, rules)
    return Policy(graph, start, tuple(rule for rule in reversed(rules) if rule.answer in reached))


def _rule(node: _Node, actions: Sequence[str], linear: Linear) -> Rule:
    """The rule with only the actions that some image takes; no feature where that leaves one."""
    if len(actions) == 1:
        return Rule(node.answer, tuple(actions), weights=((),), bias=(0.0,))
    return Rule(
        answer=node.answer,
        actions=tuple(actions),
        weights=tuple(tuple(row) for row in linear.weights.tolist()),
        bias=tuple(linear.bias.tolist()),
        features=node.features,
    )


def _reached(start: str, rules: Sequence[Rule]) -> set[str]:
    """The answers that the rules can lead to; `rules` come deepest first."""
    reached = {start}
    for rule in reversed(rules):
        if rule.answer in reached:
            reached |= set(rule.actions)
    return reached
