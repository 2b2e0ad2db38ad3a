"""What a policy that knew the labels could reach: two bounds, for the report only.

Points are (mean cost per image, error), error being the share of wrong labels by the problem's
metric. No policy can be made from an oracle.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy.chains import Chain, chains
from policy.errors import InputError
from policy.frontier import undominated
from policy.losses import wrong
from policy.problem import Problem

Point = tuple[float, float]


def soft_oracle(problem: Problem, chain: Chain) -> Point:
    """The oracle of Bolukbasi et al. 2017 on one chain of answers, paying all it walks through.

    It answers at the first answer that is right if every later one on the chain is right too; where
    there is none it goes to the end. So it errs exactly where the last answer does. Raises
    InputError if the graph has no such chain.
    """
    _check_chain(problem, chain)
    right = ~_wrong(problem, chain)
    from_here_on = np.logical_and.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    leaves = np.where(from_here_on.any(axis=1), from_here_on.argmax(axis=1), len(chain) - 1)
    costs = np.array([problem.graph.cost(chain[: end + 1]) for end in range(len(chain))])
    return float(costs[leaves].mean()), float((~right[:, -1]).mean())


def soft_oracle_points(problem: Problem) -> list[Point]:
    """The best soft oracles over the chains of the graph and every answer alone, cheapest first."""
    every = dict.fromkeys([*chains(problem.graph), *((name,) for name in problem.graph.answers)])
    return _best([soft_oracle(problem, chain) for chain in every])


def free_oracle_points(problem: Problem) -> list[Point]:
    """The free oracle: each image pays only for the cheapest answer that is right.

    Where none is right it pays for the cheapest answer of all, for nothing is gained by going on.
    One point for the cheapest answer alone, one for the two cheapest, and so on to all of them;
    between them lie mixtures. No routing of single answers is cheaper at its error.
    """
    graph = problem.graph
    names = sorted(graph.answers, key=lambda name: graph.cost((name,)))
    costs = np.array([graph.cost((name,)) for name in names])
    right = ~_wrong(problem, names)
    points = []
    for count in range(1, len(names) + 1):
        known = right[:, :count]
        first = known.argmax(axis=1)  # 0, the cheapest, where none is right
        points.append((float(costs[first].mean()), float((~known.any(axis=1)).mean())))
    return _best(points)


def _wrong(problem: Problem, names: Sequence[str]) -> NDArray[np.bool_]:
    """[n, answers]."""
    found = [wrong(problem.outputs[name], problem.labels, problem.metric) for name in names]
    return np.stack(found, axis=1)


def _best(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in cost and error, cheapest first."""
    kept = undominated([cost for cost, _ in points], [error for _, error in points])
    return [points[number] for number in kept[::-1]]


def _check_chain(problem: Problem, chain: Chain) -> None:
    unknown = [name for name in chain if name not in problem.graph.answers]
    if unknown or not chain:
        raise InputError(
            f"a chain of {chain}; wanted at least one of the answers {problem.graph.answers}"
        )
    for before, after in itertools.pairwise(chain):
        if after not in problem.graph.followers(before):
            raise InputError(
                f"the graph has no edge from {before!r} to {after!r}; a chain needs one between "
                "any two neighbours"
            )
