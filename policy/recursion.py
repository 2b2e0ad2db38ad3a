"""The recursion of Bolukbasi et al. 2017 (section 3) over some answers of a graph.

Deepest answer first: at each answer, learn to choose the cheaper of stopping there and going to one
of its followers, where going on costs what the followers' own, already fitted rules make of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.cost_sensitive import Linear, fit_linear
from policy.features import Feature
from policy.rules import Rule
from policy.walk import Family, Node, Solution, Trail, Vector, Walk, rule_at


@dataclass(frozen=True)
class _Choice:
    """The rule learned at a node: its family, its scores of the actions, what they take and pay."""

    family: Family
    linear: Linear
    taken: NDArray[np.intp]
    paid: Vector


def sweep(walk: Walk, prices: Sequence[float]) -> Iterator[Solution]:
    """A policy for each lambda, the price of one lost answer in units of cost."""
    near: dict[tuple[Feature, ...], Linear] = {}
    for price in prices:
        yield _solve(walk, price, near)


def _solve(walk: Walk, price: float, near: dict[tuple[Feature, ...], Linear]) -> Solution:
    """`to_go` is each image's realised cost below a trail's end, its price for a loss included.

    `near` holds the last lambda's fits, and then this one's.
    """
    to_go: dict[Trail, Vector] = {}
    rules: list[Rule | None] = []
    for node in walk.nodes:
        costs = np.concatenate([_costs(walk, node, t, price, to_go) for t in node.trails])
        best = _cheapest(node, costs, near)
        to_go |= dict(zip(node.trails, np.split(best.paid, len(node.trails)), strict=True))
        rules.append(rule_at(node, best.family, best.linear, best.taken))
    risk = walk.graph.cost((walk.start,)) + float(to_go[walk.start,].mean())
    return Solution(walk.policy(rules), risk)


def _costs(
    walk: Walk, node: Node, trail: Trail, price: float, to_go: Mapping[Trail, Vector]
) -> NDArray[np.float64]:
    """[n, actions]: of stopping after this trail, and of each way on."""
    going = [walk.graph.step_cost(trail, after) + to_go[*trail, after] for after in node.followers]
    return np.stack([price * walk.lost[trail], *going], axis=1)


def _cheapest(
    node: Node, costs: NDArray[np.float64], near: dict[tuple[Feature, ...], Linear]
) -> _Choice:
    """The family whose fit pays least with the time to decide; a constant takes none."""
    always = int(costs.mean(axis=0).argmin())
    choices = [_constant(node.families[0], always, costs)]
    for family in node.families:
        linear = fit_linear(family.given, costs, near.get(family.features))
        near[family.features] = linear
        taken = linear.decide(family.given.values)
        paid = costs[np.arange(len(taken)), taken]
        if (taken != taken[0]).any():
            paid = paid + family.time
        choices.append(_Choice(family, linear, taken, paid))
    return min(choices, key=lambda choice: float(choice.paid.mean()))


def _constant(family: Family, action: int, costs: NDArray[np.float64]) -> _Choice:
    """One action for all images: a linear fit is only worth it if it saves more than its time."""
    n, actions = costs.shape
    linear = Linear(np.zeros((actions, family.given.values.shape[1])), np.eye(actions)[action])
    return _Choice(family, linear, np.full(n, action), costs[:, action])
