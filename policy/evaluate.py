"""What a policy costs and gets right on a table, beside every single network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.losses import Metric, Objective, regret, wrong
from policy.rules import Policy
from policy.simulate import simulate
from policy.table import Table


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
    """A policy on n images; cost is the mean per image in `unit`, accuracies are fractions.

    speedup: cost of the full network over `cost`. top1_loss, top5_loss: accuracy of the full
    network less that of the policy. top1_excess, top5_excess: share of images that the full
    network gets right and the policy does not.
    """

    n: int
    unit: str
    cost: float
    speedup: float
    top1: float
    top5: float
    top1_loss: float
    top5_loss: float
    top1_excess: float
    top5_excess: float
    usage: dict[str, Usage]


def evaluate(policy: Policy, table: Table) -> Evaluation:
    """Replay a policy on every row of a table."""
    routes = simulate(policy, table.outputs)
    given = routes.answers(table.outputs, 5)
    full = table.outputs[policy.graph.full]
    cost = float(routes.cost.mean())
    lost = {
        (metric, objective): float(regret(given, full, table.labels, metric, objective).mean())
        for metric in METRICS
        for objective in OBJECTIVES
    }
    return Evaluation(
        n=len(table.keys),
        unit=policy.graph.unit,
        cost=cost,
        speedup=policy.graph.cost((policy.graph.full,)) / cost if cost else float("inf"),
        top1=1 - float(wrong(given, table.labels, "top1").mean()),
        top5=1 - float(wrong(given, table.labels, "top5").mean()),
        top1_loss=lost["top1", "loss"],
        top5_loss=lost["top5", "loss"],
        top1_excess=lost["top1", "excess"],
        top5_excess=lost["top5", "excess"],
        usage=_usage(policy, routes.trails, routes.trail_of),
    )


METRICS: tuple[Metric, ...] = ("top1", "top5")
OBJECTIVES: tuple[Objective, ...] = ("loss", "excess")


def _usage(
    policy: Policy, trails: Iterable[tuple[str, ...]], trail_of: NDArray[np.intp]
) -> dict[str, Usage]:
    graph = policy.graph
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

    policy: Policy
    cost: float
    regret: float


def measure(
    policies: Iterable[Policy],
    outputs: Mapping[str, Answers],
    labels: NDArray[np.int32],
    metric: Metric,
    objective: Objective,
) -> list[Point]:
    """Replay policies and keep what choosing between them needs."""
    points = []
    for policy in policies:
        routes = simulate(policy, outputs)
        full = outputs[policy.graph.full]
        lost = regret(routes.answers(outputs, 5), full, labels, metric, objective)
        points.append(Point(policy, float(routes.cost.mean()), float(lost.mean())))
    return points
