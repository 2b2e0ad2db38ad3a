"""Measuring what a policy's report says, on labelled images that fitted and chose nothing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from policy.bounds import upper_bound
from policy.certify import Certificate
from policy.errors import InputError
from policy.evaluate import Evaluation, evaluate, realised
from policy.losses import Objective, wrong
from policy.mixture import Routing
from policy.problem import Problem
from policy.report_content import (
    LOSSES,
    TEST_CONFIDENCE,
    BudgetRow,
    Content,
    Curve,
    Provenance,
    Single,
    SpeedUps,
    Summary,
    UsageAt,
)
from policy.report_errors import mistakes, overlap

Points = Sequence[tuple[float, float]]

BUDGETS = {"tight": 0.25, "middle": 0.5, "loose": 0.75}
"""Where usage is looked at: how far from the method's cheapest policy to its dearest."""

SINGLE = "best single network"


@dataclass(frozen=True)
class Subject:
    """What a report is about: the chosen policy, what was asked of it, and its competitors.

    `asked` is the promise in words, `certificate` what became of it (None: never tried). `policies`
    are each method's, and `baselines` names the methods that are there to be beaten. `budgeted` has
    each budget-aware method's policies, each beside the budget asked of it. `known` are further
    baselines, given as (mean cost, error) on the test images, and `oracles` likewise.
    """

    chosen: Routing
    method: str
    asked: str
    certificate: Certificate | None
    policies: Mapping[str, Sequence[Routing]]
    baselines: Collection[str] = ()
    budgeted: Mapping[str, Sequence[tuple[float, Routing]]] = field(default_factory=dict)
    known: Mapping[str, Points] = field(default_factory=dict)
    oracles: Mapping[str, Points] = field(default_factory=dict)


def content(
    subject: Subject, test: Problem, class_names: Sequence[str], provenance: Provenance
) -> Content:
    """Measure everything on the test images; raises InputError where there are none."""
    if not len(test):
        raise InputError(
            "no image is left to test the policy on, so there is nothing to report; give the test "
            "part a larger share, or extract more images"
        )
    summary = _summary(subject.chosen, test)
    singles = _singles(test)
    curves = _curves(subject, test)
    return Content(
        summary=summary,
        asked=subject.asked,
        certificate=subject.certificate,
        provenance=provenance,
        singles=singles,
        curves=curves,
        speedups=_all_speedups(singles, curves, test),
        usage=_usage(subject, test),
        budgets=_budgets(subject, test),
        overlap=overlap(test),
        mistakes=mistakes(subject.chosen, test, class_names),
    )


def _error(found: Evaluation, test: Problem) -> float:
    """By the problem's metric."""
    right = found.top1 if test.metric == "top1" else found.top5
    if right is None:
        raise InputError(
            "top5 needs the 5 best classes, which are not all recorded; extract with --topk 5 or "
            "more, or fit for --metric top1"
        )
    return 1 - right


def _summary(chosen: Routing, test: Problem) -> Summary:
    found = evaluate(chosen, test)
    error = _error(found, test)
    lost = realised(chosen, test)[1]
    full = test.outputs[found.full]
    return Summary(
        n=found.n,
        unit=found.unit,
        metric=test.metric,
        objective=test.objective,
        full=found.full,
        full_cost=found.full_cost,
        full_error=float(wrong(full, test.labels, test.metric).mean()),
        cost=found.cost,
        speedup=found.speedup,
        error=error,
        lost=float(lost.mean()),
        interval=interval(lost, test.objective),
    )


def interval(lost: NDArray[np.float64], objective: Objective) -> tuple[float, float]:
    """Where the mean of regrets [n] lies, two-sided, at TEST_CONFIDENCE; holds at any n."""
    if objective == "excess":
        found = binomtest(int(lost.sum()), len(lost)).proportion_ci(TEST_CONFIDENCE, "exact")
        return float(found.low), float(found.high)
    one_sided = (1 + TEST_CONFIDENCE) / 2
    low = -upper_bound(-lost, objective, one_sided)
    return low, upper_bound(lost, objective, one_sided)


def _singles(test: Problem) -> tuple[Single, ...]:
    """Every answer on its own, by rising cost."""
    found = (
        Single(
            name,
            test.graph.cost((name,)),
            float(wrong(test.outputs[name], test.labels, test.metric).mean()),
        )
        for name in test.graph.answers
    )
    return tuple(sorted(found, key=lambda single: single.cost))


def _curves(subject: Subject, test: Problem) -> tuple[Curve, ...]:
    """The chosen method first, the oracles last."""
    found = []
    for name in sorted(subject.policies, key=lambda name: name != subject.method):
        kind = "baseline" if name in subject.baselines else "method"
        found.append(_curve(name, kind, (_point(p, test) for p in subject.policies[name])))
    found += [_curve(name, "baseline", points) for name, points in subject.known.items()]
    found += [_curve(name, "bound", points) for name, points in subject.oracles.items()]
    order = ("method", "baseline", "bound")
    return tuple(sorted(found, key=lambda curve: order.index(curve.kind)))


def _point(policy: Routing, test: Problem) -> tuple[float, float]:
    found = evaluate(policy, test)
    return found.cost, _error(found, test)


def _curve(name: str, kind: str, points: Iterable[tuple[float, float]]) -> Curve:
    return Curve(name, kind, tuple(sorted({(float(cost), float(error)) for cost, error in points})))


def _all_speedups(
    singles: Sequence[Single], curves: Sequence[Curve], test: Problem
) -> tuple[SpeedUps, ...]:
    full = next(single for single in singles if single.name == test.graph.full)
    rows = [
        SpeedUps(curve.name, curve.kind, _speedups(curve.frontier, full, mixed=True))
        for curve in curves
    ]
    alone = [(single.cost, single.error) for single in singles]
    rows.insert(
        sum(row.kind == "method" for row in rows),
        SpeedUps(SINGLE, "baseline", _speedups(alone, full, mixed=False)),
    )
    return tuple(rows)


def _speedups(points: Points, full: Single, *, mixed: bool) -> tuple[float | None, ...]:
    costs = (cheapest(points, full, loss, mixed=mixed) for loss in LOSSES)
    return tuple(full.cost / cost if cost else None for cost in costs)


def cheapest(points: Points, full: Single, loss: float, *, mixed: bool) -> float:
    """The least cost at which points, by rising cost, lose at most `loss` against the full network.

    The full network itself is always allowed. If `mixed`, so are neighbouring points mixed at
    random: between two of them, cost and error lie on a line.
    """
    rounding = 1e-12  # a loss is a difference of two means
    lost = [error - full.error - loss for _, error in points]
    costs = [cost for (cost, _), over in zip(points, lost, strict=True) if over <= rounding]
    for number in range(len(points) - 1 if mixed else 0):
        over, next_over = lost[number], lost[number + 1]
        if over > rounding >= next_over:
            (cost, _), (next_cost, _) = points[number], points[number + 1]
            costs.append(cost + (next_cost - cost) * min(over / (over - next_over), 1.0))
    return min([*costs, full.cost])


def _usage(subject: Subject, test: Problem) -> tuple[UsageAt, ...]:
    """At three budgets of the chosen method, and of the chosen policy."""
    found = [evaluate(policy, test) for policy in subject.policies.get(subject.method, ())]
    every = [_usage_at("", each, test) for each in found]
    worth = set(_curve("", "", ((row.cost, row.error) for row in every)).frontier)
    kept = [row for row in every if (row.cost, row.error) in worth]
    rows: list[UsageAt] = []
    for name, share in BUDGETS.items() if kept else ():
        low, high = (end(row.cost for row in kept) for end in (min, max))
        at = low + share * (high - low)
        near = min(kept, key=lambda row: abs(row.cost - at))
        if all(near.cost != row.cost for row in rows):
            rows.append(replace(near, name=name))
    rows.append(_usage_at("chosen", evaluate(subject.chosen, test), test))
    return tuple(rows)


def _usage_at(name: str, found: Evaluation, test: Problem) -> UsageAt:
    return UsageAt(name, found.cost, _error(found, test), found.usage)


def _budgets(subject: Subject, test: Problem) -> tuple[BudgetRow, ...]:
    rows = []
    for method, policies in subject.budgeted.items():
        for asked, policy in sorted(policies, key=lambda pair: pair[0]):
            found = evaluate(policy, test)
            exits = {name: use.exits for name, use in found.usage.items()}
            rows.append(BudgetRow(method, asked, found.cost, _error(found, test), exits))
    return tuple(rows)
