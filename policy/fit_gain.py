"""--method gain: go on where the next answer's learned worth is above its cost.

At each answer and for each follower, one linear model of all evidence on the trail says how much
less would be lost if the label came from there. It does not depend on lambda, so one fit serves
every budget, and the policies of a sweep are nested: a bolder one never goes on where a safer one
stops. It looks one step ahead, not at what a follower might still lead to.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from policy.cost_sensitive import Linear
from policy.evaluate import realised
from policy.fit_averaged import fit_weights
from policy.problem import Problem
from policy.rules import Policy, Rule
from policy.search import search
from policy.walk import Family, Node, Solution, Walk, rule_at

_WEAK = 1e-3  # L2 on standardised weights, per image


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the best sets of answers, averaged as in fit_averaged."""
    return search(problem, sweep, fit_weights)


def sweep(walk: Walk, prices: Sequence[float]) -> Iterator[Solution]:
    """A policy for each lambda, the price of one lost answer in units of cost."""
    gains = {node.answer: _gains(walk, node) for node in walk.nodes}
    for price in prices:
        rules = [_rule(walk, node, gains[node.answer], price) for node in walk.nodes]
        policy = walk.policy(rules)
        cost, regret = realised(policy, walk.problem)
        yield Solution(policy, float((cost + price * regret).mean()))


def _gains(walk: Walk, node: Node) -> Linear:
    """What each action saves of the loss of stopping here, STOP first (it saves nothing)."""
    family = node.families[-1]
    zero = np.zeros(family.given.values.shape[1])
    weights, bias = [zero], [0.0]
    for after in node.followers:
        saved = [walk.lost[trail] - walk.lost[*trail, after] for trail in node.trails]
        slope, level = _regression(family, np.concatenate(saved))
        weights.append(slope)
        bias.append(level)
    return Linear(np.stack(weights), np.array(bias))


def _regression(family: Family, target: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    model = Ridge(alpha=_WEAK * len(target)).fit(family.given.values, target)
    return model.coef_, float(model.intercept_)


def _rule(walk: Walk, node: Node, gains: Linear, price: float) -> Rule | None:
    """Go where lambda times what is gained exceeds the step's cost by most."""
    steps = [
        np.mean([walk.graph.step_cost(trail, after) for trail in node.trails])
        for after in node.followers
    ]
    scores = Linear(price * gains.weights, price * gains.bias - np.array([0.0, *steps]))
    family = node.families[-1]
    return rule_at(node, family, scores, scores.decide(family.given.values))
