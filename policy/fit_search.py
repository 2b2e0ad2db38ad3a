"""--method search: direct search of the exit shares, the strong baseline that EENet lacks.

Every threshold runs over a grid of quantiles, and every combination of them is tried: what they
cost and lose comes from sums over the joint histogram of the scores, so a quarter of a million
combinations take less time than one policy takes to replay.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policy.fit_shares import (
    Candidate,
    Matrix,
    Score,
    ScoredChain,
    cuts_at_quantiles,
    safe_to_bold,
    scored_chains,
)
from policy.problem import Problem
from policy.rules import Policy

COMBINATIONS = 2**18
"""Of thresholds, at most, on one chain."""

FINEST = 256
"""Thresholds for one answer, at most: a finer grid follows single images."""

BUDGETS = 100
"""For which the least regret is looked for, up to the cost of the full network."""

SCORES: tuple[Score, ...] = ("max_probability", "entropy", "vote")


def propose(problem: Problem) -> list[Policy]:
    """The best thresholds for every budget over all chains and scores, safe ones first."""
    top = problem.graph.cost((problem.graph.full,))
    budgets = np.linspace(0, top, BUDGETS + 1)[1:]
    found = [
        one
        for score in SCORES
        for given in scored_chains(problem, score)
        for one in _best(given, budgets)
    ]
    return safe_to_bold(problem.graph, found)


def _best(given: ScoredChain, budgets: Matrix) -> Iterator[Candidate]:
    """The thresholds of one chain that lose least between any two neighbouring budgets."""
    cuts = [_levels(scores, len(given.chain)) for scores in given.scores[:, :-1].T]
    cost, lost = sums(given, cuts)
    # a budget is met if rounding alone lies above it
    between = np.searchsorted(budgets * (1 + 1e-9), cost.ravel())
    order = np.lexsort((cost.ravel(), lost.ravel(), between))
    _, first = np.unique(between[order], return_index=True)
    for number in order[first]:
        if between[number] == len(budgets):
            continue
        place = np.unravel_index(number, cost.shape)
        chosen = [levels[at] for levels, at in zip(cuts, place, strict=True)]
        yield Candidate(
            cost=float(cost[place]),
            regret=float(lost[place]),
            policy=functools.partial(given.policy, np.array([*chosen, -np.inf])),
        )


def _levels(scores: Matrix, answers: int) -> Matrix:
    """Rising thresholds: -inf (all leave), between quantiles of the scores, inf (nobody does)."""
    count = min(FINEST, int(COMBINATIONS ** (1 / (answers - 1))))
    return np.concatenate([[-np.inf], cuts_at_quantiles(scores, max(count - 2, 2)), [np.inf]])


def sums(given: ScoredChain, cuts: list[Matrix]) -> tuple[Matrix, Matrix]:
    """Mean cost and regret of all combinations of the rising thresholds `cuts` [answer].

    Two arrays with one axis for each answer but the last: [len(cuts[0]), len(cuts[1]), ...].
    """
    n, answers = given.scores.shape
    sizes = [len(levels) for levels in cuts]
    # how many of an answer's thresholds an image reaches: it leaves there for exactly those
    reached = [
        np.searchsorted(levels, given.scores[:, number], side="right")
        for number, levels in enumerate(cuts)
    ]
    cost, lost = np.zeros(sizes), np.zeros(sizes)
    for number in range(answers):
        own, shape = reached[: number + 1], sizes[: number + 1]
        later = (1,) * (len(sizes) - len(shape))
        # whole numbers are summed, so that no rounding decides between equals
        leaving = _leaving(own, shape, np.ones(n), last=number == answers - 1)
        losing = _leaving(own, shape, given.lost[:, number], last=number == answers - 1)
        cost += given.costs[number] * leaving.reshape((*leaving.shape, *later))
        lost += losing.reshape((*losing.shape, *later))
    return cost / n, lost / n


def _leaving(
    reached: list[NDArray[np.intp]], sizes: list[int], weights: Matrix, *, last: bool
) -> Matrix:
    """The sum of the weights [n] of those who leave at one answer, for all thresholds up to it.

    They go on everywhere before it. At the last answer there is no threshold: all leave.
    """
    if not sizes:  # one answer, where all leave
        return np.array(weights.sum(), dtype=np.float64)
    wide = [size + 1 for size in sizes]
    flat = np.ravel_multi_index(tuple(reached), wide)
    table = np.bincount(flat, weights, math.prod(wide)).reshape(wide).astype(np.float64)
    for axis in range(len(sizes)):
        upto = np.take(table.cumsum(axis), np.arange(sizes[axis]), axis)  # who goes on
        leaves = axis == len(sizes) - 1 and not last
        table = table.sum(axis, keepdims=True) - upto if leaves else upto
    return table
