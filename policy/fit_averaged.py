"""--method averaged: as dag, with the label from the weighted mean of the answers on the trail."""

from collections.abc import Sequence

import numpy as np

from policy.answers import Answers
from policy.losses import wrong
from policy.means import Mean, weighted_mean
from policy.problem import Problem
from policy.recursion import sweep
from policy.rules import Policy
from policy.search import search

_MOST = 20  # classes of each answer that are averaged: further ones hardly move the best

_SHARES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the best sets of answers."""
    return search(problem, sweep, fit_weights)


def fit_weights(problem: Problem, answers: Sequence[str]) -> Mean:
    """Weights for the mean of these answers, in the order in which they are got.

    One after the other: the next answer's share in its mean with all before it is the one that
    gets most images right, the largest of equals.
    """
    recorded = min(problem.outputs[answer].classes.shape[1] for answer in answers)
    k = min(recorded, _MOST)
    weights = {answers[0]: 1.0}
    mean: Answers = problem.outputs[answers[0]].top(k)
    for answer in answers[1:]:
        own = problem.outputs[answer].top(k)
        means = [weighted_mean([mean, own], [1 - share, share]) for share in _SHARES]
        errors = [wrong(each, problem.labels, problem.metric).mean() for each in means]
        best = int(np.argmin(errors))
        mean, share = means[best], _SHARES[best]
        weights[answer] = sum(weights.values()) * share / (1 - share)
    top = max(weights.values())
    return Mean(tuple((name, weight / top) for name, weight in weights.items()), k)
