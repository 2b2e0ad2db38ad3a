"""What a fit had to offer beside the policy that was chosen: what each would cost and lose."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic.dataclasses import dataclass

from policy.evaluate import Point, realised
from policy.frontier import undominated
from policy.graph import StageGraph
from policy.mixture import Routing
from policy.problem import Problem
from policy.schema import STRICT
from policy.simulate import simulate

MOST = 8
"""Offers that are kept: a bundle stays small, and a person reads no more."""

_MOST_MEASURED = 20_000  # images


@dataclass(frozen=True, config=STRICT)
class Offer:
    """A policy on held-out images: mean cost per image, and mean regret (see losses.regret).

    `stages` is the share of the images that each stage runs for; 0 is left out.
    """

    cost: float
    regret: float
    stages: dict[str, float]


def offers(proposed: Iterable[Sequence[Point]], held_out: Problem) -> tuple[Offer, ...]:
    """The best of what all methods proposed, cheapest first, measured on the held-out images.

    At most MOST of those that no other beats in both cost and regret, spread evenly over the cost.
    """
    points = [point for own in proposed for point in own]
    best = undominated([p.cost for p in points], [p.regret for p in points])[::-1].tolist()
    problem = held_out.at_most(_MOST_MEASURED)
    return tuple(offer(points[i].policy, problem) for i in _spread(best, points))


def offer(policy: Routing, problem: Problem) -> Offer:
    """Measure one policy."""
    cost, regret = realised(policy, problem)
    return Offer(float(cost.mean()), float(regret.mean()), stage_shares(policy, problem))


def stage_shares(policy: Routing, problem: Problem) -> dict[str, float]:
    """The share of the images that a policy runs each stage for, in graph order."""
    routes = simulate(policy, problem.outputs, problem.keys)
    counts = np.bincount(routes.trail_of, minlength=len(routes.trails))
    shares = dict.fromkeys((stage.name for stage in policy.graph.stages), 0.0)
    for trail, count in zip(routes.trails, counts, strict=True):
        for stage in policy.graph.needed(trail):
            shares[stage.name] += int(count) / len(problem)
    return {name: min(share, 1.0) for name, share in shares.items() if share}


def expected_cost(graph: StageGraph, stages: Mapping[str, float]) -> float:
    """The mean cost per image at the prices of this graph, from the share that runs each stage."""
    return sum(share * graph.stage[name].cost for name, share in stages.items())


def audit_cost(graph: StageGraph, stages: Mapping[str, float], fraction: float, full: str) -> float:
    """The mean cost per image of running what is left of the full network for this fraction."""
    left = (stage.cost * (1 - stages.get(stage.name, 0.0)) for stage in graph.needed((full,)))
    return fraction * sum(left)


def _spread(best: Sequence[int], points: Sequence[Point]) -> list[int]:
    """At most MOST of these, the ends among them: those nearest to even steps of the cost."""
    if len(best) <= MOST:
        return list(best)
    costs = np.array([points[i].cost for i in best])
    steps = np.linspace(costs[0], costs[-1], MOST)
    return [best[i] for i in dict.fromkeys(np.abs(costs - step).argmin() for step in steps)]
