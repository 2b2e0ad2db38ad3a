"""What a policy did on held-out images, in counts that a run without truth can be compared with."""

from collections import Counter

import numpy as np
from pydantic.dataclasses import dataclass

from policy.audit import disagrees
from policy.losses import knows
from policy.mixture import Routing
from policy.problem import Problem
from policy.schema import STRICT
from policy.simulate import simulate

_MOST_NEEDED = 5  # classes of an answer: those that top5 looks at


@dataclass(frozen=True, config=STRICT)
class Reference:
    """Counts over `images`, on the part that Evidence.measured_on names.

    `disagreed` counts labels that audit.disagrees with the full network. `exits` counts images by
    the last answer of their trail, `classes` by the number of their predicted class; 0 is left out.
    """

    images: int
    disagreed: int
    exits: dict[str, int]
    classes: dict[str, int]


def reference(policy: Routing, problem: Problem) -> Reference | None:
    """Measure a policy; None where too few classes are recorded for the problem's metric."""
    routes = simulate(policy, problem.outputs, problem.keys)
    given = routes.answers(problem.outputs, _MOST_NEEDED)
    full = problem.outputs[problem.graph.full]
    if not knows(given, problem.metric):
        return None
    exits: Counter[str] = Counter()
    for trail, n in zip(
        routes.trails, np.bincount(routes.trail_of, minlength=len(routes.trails)), strict=False
    ):
        exits[trail[-1]] += int(n)
    return Reference(
        images=len(problem),
        disagreed=int(disagrees(given, full.classes[:, 0], problem.metric).sum()),
        exits=dict(exits),
        classes=dict(Counter(str(best) for best in given.classes[:, 0].tolist())),
    )
