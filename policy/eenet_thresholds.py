"""From shares of the exits to thresholds that meet a budget: Algorithm 1 of Ilhan et al. 2024."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Matrix = NDArray[np.float64]

_NEAR = 1e-4  # of the budget
_TRIES = 60
_LEAST_SHARE = 1e-12  # before its logarithm
_SAME = 1e-9  # scores nearer than this are equal: nothing between them survives rounding


def thresholds_by_share(scores: Matrix, shares: Matrix) -> Matrix:
    """[K] so that about a share `shares` [K] of all images leaves at each exit (Algorithm 1).

    An image leaves at the first exit whose score, `scores` [n, K], reaches the threshold. Those
    lie halfway between the lowest score that leaves and the next; equal scores leave together. inf
    where nobody leaves, -inf where all do who are left, so always at the last exit.
    """
    n, exits = scores.shape
    left = np.arange(n)
    found = np.full(exits, -np.inf)
    for number in range(exits - 1):
        own = scores[left, number]
        found[number] = _cut(np.sort(own)[::-1], float(shares[number]) * n)
        left = left[own < found[number]]
    return found


def _cut(falling: Matrix, wanted: float) -> float:
    """The threshold that the number of scores nearest to `wanted` reaches."""
    inner = np.flatnonzero(falling[:-1] - falling[1:] > _SAME) + 1
    possible = np.concatenate([[0], inner, [len(falling)]])
    count = int(possible[np.abs(possible - wanted).argmin()])
    if count == 0:
        return np.inf
    if count == len(falling):
        return -np.inf
    return float((falling[count - 1] + falling[count]) / 2)


def exit_of_each(scores: Matrix, thresholds: Matrix) -> NDArray[np.intp]:
    """[n], the number of the first exit whose score reaches its threshold."""
    leaves: NDArray[np.intp] = (scores >= thresholds).argmax(axis=1)
    return leaves


def thresholds_for_budget(scores: Matrix, shares: Matrix, costs: Matrix, budget: float) -> Matrix:
    """Algorithm 1 with the shares moved so that the mean cost on these images is `budget`.

    The shares become proportional to share * exp(-tilt * cost): of all that meet the budget, those
    nearest to `shares` in relative entropy. The tilt is found by bisection on the cost that the
    thresholds really have. `costs` [K] rise; a budget outside them gets the nearest of them.
    """
    known = np.log(np.maximum(shares, _LEAST_SHARE))
    relative = (costs - costs[0]) / ((costs[-1] - costs[0]) or 1.0)

    def at(tilt: float) -> tuple[Matrix, float]:
        found = thresholds_by_share(scores, softmax(known - tilt * relative))
        return found, float(costs[exit_of_each(scores, found)].mean()) - budget

    tilt = 0.0
    best, over = at(tilt)
    step = np.copysign(1.0, over)  # grows until the budget is crossed, then halves
    crossed = False
    for _ in range(_TRIES):
        tilt += step
        found, now = at(tilt)
        if abs(now) < abs(over):
            best, over = found, now
        if abs(over) <= _NEAR * budget:
            break
        crossed = crossed or now * step < 0
        size = abs(step) / 2 if crossed else abs(step) * 2
        step = np.copysign(size, now)
    return best
