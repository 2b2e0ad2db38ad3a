"""The report of a fit: what was tried beside the chosen policy, measured on the test part."""

from collections.abc import Mapping, Sequence

from policy.bundle import REPORT, Bundle
from policy.certify import safe_to_bold
from policy.choose import within_budget
from policy.errors import InputError
from policy.evaluate import Point, measure
from policy.files import write_bytes
from policy.fit import Fit
from policy.methods import BASELINES, METHODS, MOST_FITTED
from policy.mixture import Routing
from policy.oracles import free_oracle_points, soft_oracle_points
from policy.problem import Problem
from policy.report import render
from policy.report_content import Content, Provenance
from policy.report_measure import Subject, content

BUDGETS = (0.25, 0.5, 0.75)
"""Where the budget table looks: how far from the cheapest answer's cost to the full network's."""

_MOST_MEASURED = 100_000  # images: every policy of every method is replayed on them

_QUICK = tuple(name for name in BASELINES if name != "search")  # which is a method to use, too


def write_report(folder: str, bundle: Bundle, fitted: Fit, parts: Mapping[str, Problem]) -> None:
    """Measure on the part "test", or on "choose" where that is empty, and write report.html."""
    write_bytes(f"{folder}/{REPORT}", render(report_of(bundle, fitted, parts)).encode())


def report_of(bundle: Bundle, fitted: Fit, parts: Mapping[str, Problem]) -> Content:
    """What the report says; raises InputError on a bundle that does not say how it came to be."""
    evidence = bundle.evidence
    if evidence is None:
        raise InputError("the policy has no evidence, so there is nothing to report; fit it again")
    test = parts[evidence.measured_on].at_most(_MOST_MEASURED)
    points = _with_baselines(fitted, parts)
    subject = Subject(
        chosen=fitted.policy,
        method=fitted.method,
        asked=evidence.promise,
        certificate=fitted.certificate,
        policies={name: safe_to_bold(own) for name, own in points.items()},
        baselines=BASELINES,
        budgeted={name: _budgeted(own, test) for name, own in points.items() if name != "single"},
        oracles={
            "soft oracle": soft_oracle_points(test),
            "free oracle": free_oracle_points(test),
        },
    )
    provenance = Provenance(
        digest=evidence.data_digest,
        method=fitted.method,
        seed=evidence.seed,
        parts=evidence.parts,
        versions=evidence.versions,
        untouched=evidence.measured_on == "test",
    )
    return content(subject, test, bundle.class_names, provenance)


def _with_baselines(fitted: Fit, parts: Mapping[str, Problem]) -> dict[str, Sequence[Point]]:
    """What was proposed by method, with the quick baselines; measured on the part that chooses."""
    problem = parts["fit"].at_most(MOST_FITTED)
    chooser = parts["choose"].at_most(MOST_FITTED)
    missing = {name: METHODS[name](problem) for name in _QUICK if name not in fitted.proposed}
    return dict(fitted.proposed) | {name: measure(own, chooser) for name, own in missing.items()}


def _budgeted(points: Sequence[Point], problem: Problem) -> list[tuple[float, Routing]]:
    """The best of a method's policies for each budget that it can meet."""
    graph = problem.graph
    low = min(graph.cost((answer,)) for answer in graph.answers)
    budgets = [low + share * (graph.cost((graph.full,)) - low) for share in BUDGETS]
    cheapest = min(point.cost for point in points)
    return [
        (budget, within_budget(points, budget, problem.seed).policy)
        for budget in budgets
        if budget >= cheapest
    ]
