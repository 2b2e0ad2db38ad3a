"""--method uniform: random routing that meets a budget, the baseline of Bolukbasi et al. 2017.

A hash of the key picks one of two answers, whatever the image looks like. What such a mixture costs
and loses lies on the line between its two answers.
"""

import itertools

from policy.fit_single import propose as singles_of
from policy.frontier import undominated
from policy.mixture import Mixture, Routing
from policy.problem import Problem

STEPS = 20
"""Shares tried between two answers."""


def propose(problem: Problem) -> list[Routing]:
    """Mixtures of neighbours by cost, and of the cheapest with the full network; safe ones first.

    Those that lose more than another of the same cost are left out; every answer alone is among the
    candidates. Costs and regrets are expected ones, so that the order does not depend on the keys.
    """
    graph = problem.graph
    singles = singles_of(problem)
    points: dict[Routing, tuple[float, float]] = {
        one: (graph.cost((one.start,)), float(problem.lost[one.start].mean())) for one in singles
    }
    found = dict(points)
    pairs = [*itertools.pairwise(singles), (singles[0], singles[-1])]
    for dear, cheap in pairs if len(singles) > 1 else ():
        for step in range(1, STEPS):
            share = step / STEPS
            cost, lost = (
                share * high + (1 - share) * low
                for high, low in zip(points[dear], points[cheap], strict=True)
            )
            found[Mixture(cheap, dear, share, problem.seed)] = cost, lost
    routings = list(found)
    kept = undominated(*zip(*found.values(), strict=True))
    return list(dict.fromkeys([singles[0], *(routings[number] for number in kept)]))
