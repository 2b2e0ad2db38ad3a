"""Choosing one of the proposed policies on images that none of them was fitted on."""

from collections.abc import Sequence

import numpy as np

from policy.errors import InputError
from policy.evaluate import Point
from policy.mixture import Mixture
from policy.rules import Policy

_ROUNDING = 1 + 1e-9  # a mean of equal costs may lie a last digit above them


def within_loss(points: Sequence[Point], max_loss: float) -> Point:
    """The cheapest point that loses at most `max_loss`; the full network is always among them."""
    allowed = [point for point in points if point.regret <= max_loss]
    if not allowed:
        raise InputError(
            f"no policy loses at most {max_loss}; the best loses {min(p.regret for p in points)}. "
            "Allow a larger --max-loss."
        )
    return min(allowed, key=lambda point: (point.cost, point.regret))


def within_budget(points: Sequence[Point], budget: float, seed: int) -> Point:
    """The point that loses least at a mean cost of `budget`, met exactly where that loses less.

    Between two neighbours, one cheaper and one dearer than the budget, a share of the images that
    a hash of their keys (and `seed`) picks follows the dearer one: gamma = (budget - cheap) / (dear
    - cheap) (cascade routing, ICML 2025). Points whose policies are mixtures already are not mixed
    again.
    """
    allowed = [point for point in points if point.cost <= budget * _ROUNDING]
    if not allowed:
        raise InputError(
            f"no policy costs at most {budget} per image; the cheapest costs "
            f"{min(point.cost for point in points):.6g}. Allow a larger --budget."
        )
    alone = min(allowed, key=lambda point: (point.regret, point.cost))
    mixed = _mixed(points, budget, seed)
    return mixed if mixed is not None and mixed.regret < alone.regret else alone


def _mixed(points: Sequence[Point], budget: float, seed: int) -> Point | None:
    """The best mixture of a cheaper and a dearer policy that costs `budget`; None without one."""
    single = [point for point in points if isinstance(point.policy, Policy)]
    cheap = [point for point in single if point.cost <= budget]
    dear = [point for point in single if point.cost > budget]
    if not (cheap and dear):
        return None
    low, high = (np.array([(p.cost, p.regret) for p in side]) for side in (cheap, dear))
    share = (budget - low[:, None, 0]) / (high[None, :, 0] - low[:, None, 0])
    regret = (1 - share) * low[:, None, 1] + share * high[None, :, 1]
    i, j = np.unravel_index(int(regret.argmin()), regret.shape)
    ((cheaper,), (dearer,)) = cheap[i].policy.arms, dear[j].policy.arms
    policy = Mixture(cheaper, dearer, float(share[i, j]), seed)
    return Point(policy, budget, float(regret[i, j]))
