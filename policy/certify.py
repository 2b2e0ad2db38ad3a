"""Certify disposes: the cheapest of the proposed policies whose loss is proved to be small enough.

The proof holds for images drawn independently from where these were drawn, none of which was used
to fit, choose or order the policies (see soundness).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.bounds import BOUNDS, LARGEST_CONFIDENCE, Bound, p_value, upper_bound
from policy.errors import InputError
from policy.evaluate import Point, realised
from policy.losses import Metric, Objective
from policy.mixture import Routing
from policy.problem import Problem
from policy.rules import always
from policy.schema import STRICT

_SMALLEST_CONFIDENCE = 0.5


@dataclass(frozen=True, config=STRICT)
class Certificate:
    """What was asked, and what `n` images that nothing else had seen say about it.

    With probability `confidence` over the draw of these images, the policy's true mean regret (see
    losses.regret) is at most `max_loss`, whichever was kept of the `tested` policies. `regret` and
    `cost` are what the kept policy did on these images, and `bound` its own upper bound, from
    `test`, as if it had been the only one. Not `passed`: the policy is to always get the full
    network, which loses nothing by definition.
    """

    metric: Metric
    objective: Objective
    max_loss: float
    confidence: float
    n: int
    test: Bound
    tested: int
    passed: bool
    regret: float
    bound: float
    cost: float

    @property
    def text(self) -> str:
        """For people, one sentence."""
        asked = f"{self.metric} {self.objective} at most {self.max_loss:g}"
        sure = f"{self.confidence * 100:g}% confidence"
        if not self.passed:
            return (
                f"always the full network: none of {self.tested} policies tested on {self.n} "
                f"images is cheaper and proved to keep {asked} at {sure}"
            )
        return (
            f"{asked}, certified at {sure} on {self.n} images ({self.test}): measured "
            f"{self.regret:.4g}, bound {self.bound:.4g}, {self.tested} policies tested"
        )


def safe_to_bold(points: Iterable[Point]) -> list[Routing]:
    """The order to certify policies in, from what they did on images that certify does not see.

    By rising regret, and among equals by falling cost. Left out is what costs as much as some
    policy that lost less: a step more at which the walk might stop, and nothing to gain. Equals
    are all kept, since the safer of them can pass where the cheapest fails.
    """
    ordered = sorted(points, key=lambda point: (point.regret, -point.cost))
    kept: list[Routing] = []
    cheapest = float("inf")
    for _, equals in groupby(ordered, key=lambda point: point.regret):
        cheaper = [point for point in equals if point.cost < cheapest]
        kept += [point.policy for point in cheaper]
        cheapest = min([cheapest, *(point.cost for point in cheaper)])
    return list(dict.fromkeys(kept))


def certify(
    policies: Sequence[Routing], problem: Problem, max_loss: float, confidence: float
) -> tuple[Routing, Certificate]:
    """The cheapest policy proved to lose at most `max_loss`, or always the full network.

    Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then test"): the policies are tested
    as ordered, each at the whole risk 1 - confidence, up to the first that fails. For one that is
    truly too bold to pass, the first such in the order must be passed falsely, so the chance is at
    most that risk for any order fixed beforehand; which of the passed ones is kept is then free.
    Spreading the risk over several starting points, or fewer policies, kept no more of the possible
    saving on recorded ImageNet predictions. Raises InputError on a `max_loss` outside [0, 1] or a
    confidence outside [0.5, 0.999].
    """
    check_asked(max_loss, confidence)
    graph, objective = problem.graph, problem.objective
    full = always(graph, graph.full)
    kept = Point(full, graph.cost((graph.full,)), 0.0)
    proof: NDArray[np.float64] | None = None
    tested = 0
    for policy in policies:
        if policy == full:  # it loses nothing by definition: no need to prove it
            continue
        tested += 1
        costs, regret = realised(policy, problem)
        if p_value(regret, max_loss, objective) > 1 - confidence:
            break
        if costs.mean() < kept.cost:
            kept, proof = Point(policy, float(costs.mean()), float(regret.mean())), regret
    bound = 0.0 if proof is None else upper_bound(proof, objective, confidence)
    return kept.policy, Certificate(
        metric=problem.metric,
        objective=objective,
        max_loss=max_loss,
        confidence=confidence,
        n=len(problem),
        test=BOUNDS[objective],
        tested=tested,
        passed=proof is not None,
        regret=kept.regret,
        bound=min(bound, max_loss),  # its test passed at max_loss: any more is rounding
        cost=kept.cost,
    )


def check_asked(max_loss: float, confidence: float) -> None:
    """Raise InputError on a loss or a confidence that nothing can be certified for."""
    if not 0 <= max_loss <= 1:
        raise InputError(f"a loss of at most {max_loss} was asked for; wanted a fraction, 0 to 1")
    if not _SMALLEST_CONFIDENCE <= confidence <= LARGEST_CONFIDENCE:
        raise InputError(
            f"a confidence of {confidence} was asked for; wanted one from {_SMALLEST_CONFIDENCE} "
            f"to {LARGEST_CONFIDENCE} (0.95 is usual)"
        )
