"""Where errors lie, for the report: what the networks share, and what the policy alone gets wrong.

Everything is measured on labelled test images; see report_content for what the numbers mean.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.losses import wrong
from policy.mixture import Routing
from policy.problem import Problem
from policy.report_content import (
    ClassRow,
    ErrorsOf,
    Mistake,
    Mistakes,
    Overlap,
    Pattern,
    TrailRow,
)
from policy.simulate import Routes, simulate

PATTERNS, CLASSES, EXAMPLES = 12, 10, 20
"""How many of each are shown at most."""


def overlap(test: Problem) -> Overlap:
    """Which answers err on the same images (Bolukbasi et al. 2017, Figure 6)."""
    names = tuple(sorted(test.graph.answers, key=lambda name: test.graph.cost((name,))))
    right = np.stack(
        [~wrong(test.outputs[name], test.labels, test.metric) for name in names], axis=1
    )
    found, counts = np.unique(right, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:PATTERNS]
    patterns = tuple(
        Pattern(tuple(found[row].tolist()), float(counts[row] / len(right))) for row in order
    )
    full = right[:, names.index(test.graph.full)]
    return Overlap(
        answers=names,
        all_right=float(right.all(axis=1).mean()),
        all_wrong=float((~right).all(axis=1).mean()),
        patterns=patterns,
        other=float((counts.sum() - counts[order].sum()) / len(right)),
        rows=tuple(_errors_of(names, number, right, full) for number in range(len(names))),
    )


def _errors_of(
    names: Sequence[str], number: int, right: NDArray[np.bool_], full: NDArray[np.bool_]
) -> ErrorsOf:
    ours = right[:, number]
    later = right[:, number + 1 :].any(axis=1)
    return ErrorsOf(
        name=names[number],
        wrong=float((~ours).mean()),
        later_right=float((~ours & later).mean()),
        beats_full=float((ours & ~full).mean()),
    )


def mistakes(chosen: Routing, test: Problem, class_names: Sequence[str]) -> Mistakes:
    """What only the full network gets right: by trail, by class, and by example."""
    routes = simulate(chosen, test.outputs, test.keys)
    given = routes.answers(test.outputs, 5)
    ours = wrong(given, test.labels, test.metric)
    full = wrong(test.outputs[test.graph.full], test.labels, test.metric)
    return Mistakes(
        lost=int((ours & ~full).sum()),
        trails=_trails(routes, ours, full),
        classes=_classes(test, ours, full, class_names),
        examples=_examples(test, routes, given, np.flatnonzero(ours & ~full), class_names),
    )


def _trails(
    routes: Routes, ours: NDArray[np.bool_], full: NDArray[np.bool_]
) -> tuple[TrailRow, ...]:
    """By falling number of images; the arms of a mixture are taken together."""
    rows = []
    for trail in dict.fromkeys(routes.trails):
        same = [number for number, other in enumerate(routes.trails) if other == trail]
        on = np.isin(routes.trail_of, same)
        rows.append(
            TrailRow(
                trail=trail,
                n=int(on.sum()),
                cost=float(routes.cost[on].mean()),
                error=float(ours[on].mean()),
                full_error=float(full[on].mean()),
                excess=float((ours & ~full)[on].mean()),
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.n))


def _classes(
    test: Problem, ours: NDArray[np.bool_], full: NDArray[np.bool_], class_names: Sequence[str]
) -> tuple[ClassRow, ...]:
    """The classes that lose most images, the smaller first among equals."""
    rows = []
    for label in np.unique(test.labels[ours & ~full]):
        of = test.labels == label
        rows.append(
            ClassRow(
                name=_name(int(label), class_names),
                n=int(of.sum()),
                lost=int((ours & ~full & of).sum()),
                error=float(ours[of].mean()),
                full_error=float(full[of].mean()),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.lost, row.n)))[:CLASSES]


def _examples(
    test: Problem,
    routes: Routes,
    given: Answers,
    lost: NDArray[np.intp],
    class_names: Sequence[str],
) -> tuple[Mistake, ...]:
    """The surest mistakes first."""
    surest = np.argsort(-given.probabilities[lost, 0], kind="stable")[:EXAMPLES]
    return tuple(
        Mistake(
            key=test.keys[row],
            label=_name(int(test.labels[row]), class_names),
            given=_name(int(given.classes[row, 0]), class_names),
            trail=routes.trails[routes.trail_of[row]],
            confidence=float(given.probabilities[row, 0]),
        )
        for row in lost[surest].tolist()
    )


def _name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if label < len(class_names) else str(label)
