"""Choosing one of the proposed policies on images that none of them was fitted on."""

from collections.abc import Sequence

from policy.errors import InputError
from policy.evaluate import Point

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


def within_budget(points: Sequence[Point], budget: float) -> Point:
    """The point that loses least among those whose mean cost is at most `budget`."""
    allowed = [point for point in points if point.cost <= budget * _ROUNDING]
    if not allowed:
        raise InputError(
            f"no policy costs at most {budget} per image; the cheapest costs "
            f"{min(point.cost for point in points):.6g}. Allow a larger --budget."
        )
    return min(allowed, key=lambda point: (point.regret, point.cost))
