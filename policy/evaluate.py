"""What a policy costs and gets right on a table, beside every single network."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.graph import StageGraph
from policy.losses import Metric, Objective, knows, regret, wrong
from policy.mixture import Routing
from policy.problem import Problem
from policy.simulate import simulate

_OBJECTIVES: tuple[Objective, Objective] = ("loss", "excess")


@dataclass(frozen=True)
class Usage:
    """How much one answer was used: shares in [0, 1].

    samples: share of images that got this answer. exits: share labelled by it. cost: share of all
    cost spent on getting it (a shared stage counts for the first answer that needed it).
    """

    samples: float
    exits: float
    cost: float


@dataclass(frozen=True)
class Evaluation:
    """A policy on n images; costs are means per image in `unit`, accuracies are fractions.

    `full` is the answer
    compared with. speedup: its cost, `full_cost`, over `cost`; None where it costs nothing.
    top1_loss, top5_loss: accuracy of the full network less that of the policy. top1_excess,
    top5_excess: share of images that the full network gets right and the policy does not. What
    concerns the five best classes is None where fewer are recorded.
    """

    n: int
    unit: str
    cost: float
    full: str
    full_cost: float
    speedup: float | None
    top1: float
    top5: float | None
    top1_loss: float
    top5_loss: float | None
    top1_excess: float
    top5_excess: float | None
    usage: dict[str, Usage]


def evaluate(policy: Routing, problem: Problem) -> Evaluation:
    """Replay a policy on every image, at the costs of the policy's own graph."""
    routes = simulate(policy, problem.outputs, problem.keys)
    given, full = routes.answers(problem.outputs, 5), problem.outputs[policy.graph.full]
    cost, full_cost = float(routes.cost.mean()), policy.graph.cost((policy.graph.full,))
    top1, top1_loss, top1_excess = _accuracy(given, full, problem.labels, "top1")
    five: tuple[float | None, float | None, float | None] = (None, None, None)
    if knows(given, "top5") and knows(full, "top5"):
        five = _accuracy(given, full, problem.labels, "top5")
    return Evaluation(
        n=len(problem.labels),
        unit=policy.graph.unit,
        cost=cost,
        full=policy.graph.full,
        full_cost=full_cost,
        speedup=full_cost / cost if cost else None,
        top1=top1,
        top5=five[0],
        top1_loss=top1_loss,
        top5_loss=five[1],
        top1_excess=top1_excess,
        top5_excess=five[2],
        usage=_usage(policy.graph, routes.trails, routes.trail_of),
    )


def _accuracy(
    given: Answers, full: Answers, labels: NDArray[np.int32], metric: Metric
) -> tuple[float, float, float]:
    """Accuracy, loss and excess against the full network."""
    right = 1 - float(wrong(given, labels, metric).mean())
    loss, excess = (
        float(regret(given, full, labels, metric, objective).mean()) for objective in _OBJECTIVES
    )
    return right, loss, excess


def _usage(
    graph: StageGraph, trails: Iterable[tuple[str, ...]], trail_of: NDArray[np.intp]
) -> dict[str, Usage]:
    samples, exits, spent = (dict.fromkeys(graph.answers, 0.0) for _ in range(3))
    for number, trail in enumerate(trails):
        share = float((trail_of == number).mean())
        exits[trail[-1]] += share
        for step, answer in enumerate(trail):
            samples[answer] += share
            spent[answer] += share * graph.step_cost(trail[:step], answer)
    total = sum(spent.values()) or 1.0
    return {a: Usage(samples[a], exits[a], spent[a] / total) for a in graph.answers}


@dataclass(frozen=True)
class Point:
    """A policy with its mean cost and mean regret (see `losses.regret`) on some images."""

    policy: Routing
    cost: float
    regret: float


def realised(policy: Routing, problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each image costs, and what its label loses (see `losses.regret`): both [n]."""
    routes = simulate(policy, problem.outputs, problem.keys)
    full = problem.outputs[problem.graph.full]
    given = routes.answers(problem.outputs, 5)
    return routes.cost, regret(given, full, problem.labels, problem.metric, problem.objective)


def measure(policies: Iterable[Routing], problem: Problem) -> list[Point]:
    """Replay policies and keep what choosing between them needs."""
    points = []
    for policy in policies:
        cost, lost = realised(policy, problem)
        points.append(Point(policy, float(cost.mean()), float(lost.mean())))
    return points
