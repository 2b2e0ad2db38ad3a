"""Which of a graph's answers a policy should choose between: a beam search over sets of answers.

All answers at once is not the best choice even when it could be: each answer on the way costs its
stages, and each rule costs what it overfits. So sets grow from one answer by one more at a time,
and for every lambda the best sets of each size go on. What is proposed are the best of each size,
so that more answers on offer never take away what fewer could do.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from policy.evaluate import measure, realised
from policy.graph import StageGraph
from policy.means import Mean
from policy.problem import Problem
from policy.rules import Policy, always
from policy.walk import Solution, Walk

STEPS_PER_DECADE = 5
"""Of the sweep over lambda, the price of one lost answer in units of cost."""

LARGEST = 3
"""Answers that a policy chooses between at most; a fourth overfits more than it saves."""

_KEPT = 2  # sets of each size, at each lambda
_JUMP = 0.04  # of the full network's cost: what may lie between two policies of a sweep
_MOST_BETWEEN = 12

Set = tuple[str, ...]

Weigh = Callable[[Problem, Set], Mean | None]
"""The weights with which some answers are averaged; None: the last one is the label."""

Sweep = Callable[[Walk, Sequence[float]], Iterator[Solution]]
"""How a method solves every lambda over some answers."""


def prices_of(graph: StageGraph) -> list[float]:
    """The lambdas of the sweep, dearest first, in units of the graph's costs."""
    top = graph.cost((graph.full,)) or 1.0
    return [float(price) for price in top * np.logspace(2.7, -0.5, round(3.2 * STEPS_PER_DECADE))]


def search(problem: Problem, sweep: Sweep, weigh: Weigh = lambda *_: None) -> list[Policy]:
    """The best policies of every size at every lambda, safe ones first; every answer alone."""
    graph = problem.graph
    prices = prices_of(graph)
    found = dict.fromkeys(always(graph, answer) for answer in graph.answers)
    sets: list[Set] = [(answer,) for answer in graph.answers]
    for _ in range(LARGEST - 1):
        walks = {a: Walk(problem, a, weigh(problem, a)) for a in _grown(sets, graph)}
        solved = {answers: list(sweep(walk, prices)) for answers, walk in walks.items()}
        best = [_best(solved, number) for number in range(len(prices))]
        sets = list(dict.fromkeys(answers for column in best for answers in column))
        for answers in sets:
            solutions = [(number, solved[answers][number]) for number in range(len(prices))]
            kept = [(number, s) for number, s in solutions if answers in best[number]]
            found |= {solution.policy: None for _, solution in kept}
            between = _between(problem, [solution for _, solution in solutions], prices)
            more = [price for number, _ in kept for price in between.get(number, ())]
            found |= {solution.policy: None for solution in sweep(walks[answers], more)}
    return _safe_to_bold(found, problem)


def _safe_to_bold(policies: Iterable[Policy], problem: Problem) -> list[Policy]:
    """All of them, dearest first: what looks wasteful here may be safe elsewhere."""
    full = always(problem.graph, problem.graph.full)
    points = sorted(measure(policies, problem), key=lambda point: (-point.cost, point.regret))
    ordered = [arm for point in points for arm in point.policy.arms]
    return [full, *(policy for policy in ordered if policy != full)]


def _between(
    problem: Problem, solutions: Sequence[Solution], prices: Sequence[float]
) -> dict[int, list[float]]:
    """More lambdas, by the number of the one before, where the cost jumps from one to the next.

    So no budget is far from a policy's cost.
    """
    widest = _JUMP * problem.graph.cost((problem.graph.full,))
    costs = [float(realised(solution.policy, problem)[0].mean()) for solution in solutions]
    found = {}
    for number, ((dear, cheap), (high, low)) in enumerate(
        zip(pairwise(costs), pairwise(prices), strict=True)
    ):
        missing = min(int(abs(dear - cheap) / widest), _MOST_BETWEEN) if widest else 0
        found[number] = np.geomspace(high, low, missing + 2)[1:-1].tolist()
    return found


def _grown(sets: Iterable[Set], graph: StageGraph) -> list[Set]:
    """Each set with one more answer, first the one to start from; only what can be walked."""
    grown: dict[Set, None] = {}
    for answers in sets:
        for other in graph.answers:
            if other not in answers:
                together = tuple(a for a in _in_order(graph) if a in answers or a == other)
                if _walkable(together, graph):
                    grown[together] = None
    return list(grown)


def _in_order(graph: StageGraph) -> list[str]:
    return sorted(graph.answers, key=lambda answer: graph.cost((answer,)))


def _walkable(answers: Sequence[str], graph: StageGraph) -> bool:
    """Whether every answer but the first may follow an earlier one."""
    return all(
        any(answer in graph.followers(before) for before in answers[:number])
        for number, answer in enumerate(answers)
        if number
    )


def _best(solved: dict[Set, list[Solution]], number: int) -> list[Set]:
    """The sets with the least risk at a lambda, best first."""
    return sorted(solved, key=lambda answers: solved[answers][number].risk)[:_KEPT]
