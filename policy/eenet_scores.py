"""EENet's score functions: how likely each exit is right, linear and clamped to [0, 1].

Section 3.2 of Ilhan et al. 2024, with the loss L_g. Given how much each sample counts, an exit's
loss is convex, so each is minimised to the end instead of by single gradient steps, in the order of
the chain: a later exit looks at the scores of the earlier ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.eenet_inputs import Exits, Matrix

EDGE = 0.02
"""How near to 0 or 1 the loss of a wrong score is continued by its tangent."""

ROUND = 0.05
"""How near to the ends of [0, 1] clamping sets in, so that the slope does not jump there."""

DECAY = 1e-4
"""Of the weights, on standardised inputs; the loss of an exit is a weighted mean."""

_ORDERS = 1e-3
_STEPS = 300  # at most; a dozen is usual
_DAMPING = 1e-3  # at least, beside curvatures of 1 to EDGE^-2
_TINY = 1e-9  # of the curvature, where an input is constant
_ENOUGH = 1e-4  # of the descent that the slope promises
_SETTLED = 1e-5  # what a step still gains


@dataclass(frozen=True)
class Scores:
    """For each exit its weights of the standardised inputs, then of the earlier scores, then 1."""

    weights: tuple[Matrix, ...]


def cross_entropy(scores: Matrix, right: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The loss of each score, any real number, against 0 or 1, and its two derivatives.

    That of the score clamped to [0, 1], with two changes that make it convex and smooth enough for
    Newton's steps: a score on the wrong side is charged by the tangent at EDGE from there, where
    clamping would leave an endless loss without a slope; on the right side clamping sets in over
    the last ROUND by a parabola.
    """
    score = np.where(right > 0, scores, 1 - scores)
    inner = np.clip(score, EDGE, 1 - ROUND)
    slope, bend = -1 / inner, np.where(inner == score, inner**-2, 0.0)
    loss = slope * (score - inner) - np.log(inner)
    over = np.clip(score - (1 - ROUND), 0, 2 * ROUND)  # the parabola's length is twice that
    curve = 1 / (2 * ROUND * (1 - ROUND))
    loss = np.where(over > 0, curve / 2 * (2 * ROUND - over) ** 2 + _LEVEL, loss)
    slope = np.where(over > 0, -curve * (2 * ROUND - over), slope)
    bend = np.where((over > 0) & (over < 2 * ROUND), curve, bend)
    return loss, np.where(right > 0, slope, -slope), bend


_LEVEL = -np.log(1 - ROUND) - ROUND / (1 - ROUND)  # so that parabola and logarithm meet


def score_loss(
    weights: Matrix, inputs: Matrix, right: Matrix, share: Matrix
) -> tuple[float, Matrix]:
    """One exit's loss and its gradient by `weights` [inputs].

    inputs [n, inputs], the last of them 1; right [n]; share [n], how much each sample counts, which
    sums to 1.
    """
    loss, slope, _ = cross_entropy(inputs @ weights, right)
    decay = _decay(weights)
    value = share @ loss + decay / 2 @ weights**2
    return float(value), (share * slope) @ inputs + decay * weights


def _decay(weights: Matrix) -> Matrix:
    """Of each weight; none of the last, which is the constant's."""
    return np.append(np.full(len(weights) - 1, DECAY), 0.0)


def minimise(weights: Matrix, inputs: Matrix, right: Matrix, share: Matrix) -> Matrix:
    """The weights of least `score_loss`, by damped Newton steps from `weights`.

    A step that does not descend is tried again with more damping (Levenberg 1944). The loss bends
    nowhere more than EDGE^-2, so with that much every step descends: where the loss is flat between
    its bends, halving a Newton step instead can fail far from the minimum.
    """
    loss, gradient = score_loss(weights, inputs, right, share)
    damping = _DAMPING
    for _ in range(_STEPS):
        _, _, bend = cross_entropy(inputs @ weights, right)
        curvature = (inputs * (share * (bend + damping))[:, None]).T @ inputs
        curvature += np.diag(_decay(weights) + _TINY)
        step = -np.linalg.solve(curvature, gradient)
        tried = weights + step
        reached, slope = score_loss(tried, inputs, right, share)
        if reached > loss + _ENOUGH * (gradient @ step):
            if damping > EDGE**-2:  # what is left to gain is lost in rounding
                break
            damping *= 8
            continue
        settled = loss - reached < _SETTLED and damping == _DAMPING
        weights, loss, gradient = tried, reached, slope
        if settled:
            break
        damping = max(damping / 4, _DAMPING)
    return weights


def fit_scores(exits: Exits, shares: Matrix, start: Scores | None = None) -> Scores:
    """Minimise L_g where samples count `shares` [n, K] at the exits; each column sums to 1."""
    found: list[Matrix] = []
    clamped: list[Matrix] = []
    for number in range(len(exits.chain)):
        inputs = _inputs(exits, number, clamped)
        right, share = exits.right[:, number], shares[:, number]
        first = start.weights[number] if start else _mean_only(inputs, float(right @ share))
        if right.min() == right.max():
            found.append(_by_first(inputs, right[0]))
        else:
            found.append(minimise(first, inputs, right, share))
        clamped.append(np.clip(inputs @ found[-1], 0, 1))
    return Scores(tuple(found))


def raw_scores(exits: Exits, scores: Scores) -> Matrix:
    """[n, K], before clamping."""
    found: list[Matrix] = []
    for number, weights in enumerate(scores.weights):
        clamped = [np.clip(score, 0, 1) for score in found]
        found.append(_inputs(exits, number, clamped) @ weights)
    return np.stack(found, axis=1)


def _inputs(exits: Exits, number: int, clamped: Sequence[Matrix]) -> Matrix:
    """[n, inputs]: standardised features, earlier scores, 1."""
    return np.column_stack([exits.exits[number].values, *clamped, np.ones(len(exits))])


def _by_first(inputs: Matrix, mean: float) -> Matrix:
    """Where an exit is always or never right there is nothing to learn, and all scores are equal.

    So that a share of the images can be told from the rest, the first input (the maximum
    probability) orders them; standardised values below 10 then move no score by 0.01.
    """
    weights = _mean_only(inputs, mean)
    weights[0] = _ORDERS
    return weights


def _mean_only(inputs: Matrix, mean: float) -> Matrix:
    weights = np.zeros(inputs.shape[1])
    weights[-1] = mean
    return weights
