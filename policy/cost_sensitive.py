"""Learning to take the cheapest of several actions when the cost of each is known in hindsight."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Matrix = NDArray[np.float64]

_PAIR = 2

_WEAK = 1e-3  # L2 on standardised weights, per unit of mean weight; ImageNet's frontier is flat
_PRIOR = 0.5  # images that this counts as besides, which matters where there are few

_STEPS = {"maxiter": 40, "ftol": 1e-5}  # candidates are compared by cost: no need of more digits


@dataclass(frozen=True)
class Linear:
    """weights [actions, features], bias [actions]; the action of the highest score is taken."""

    weights: Matrix
    bias: Matrix

    def decide(self, values: Matrix) -> NDArray[np.intp]:
        """[n] actions for feature values [n, features]; the first of equals."""
        actions: NDArray[np.intp] = (values @ self.weights.T + self.bias).argmax(axis=1)
        return actions

    def mean_cost(self, values: Matrix, costs: Matrix) -> float:
        """The mean of costs [n, actions] over the actions taken."""
        return float(costs[np.arange(len(costs)), self.decide(values)].mean())

    def only(self, actions: NDArray[np.intp]) -> "Linear":
        """The same scores for some of the actions."""
        return Linear(self.weights[actions], self.bias[actions])


@dataclass(frozen=True)
class Standard:
    """Feature values [n, features] made comparable: mean 0 and standard deviation 1."""

    values: Matrix
    centre: Matrix
    scale: Matrix

    def original(self, linear: Linear) -> Linear:
        """The same scores, of the values as they were given."""
        weights = linear.weights / self.scale
        return Linear(weights, linear.bias - weights @ self.centre)


def standardise(values: Matrix) -> Standard:
    """Columns that are constant but for rounding become 0."""
    centre, scale = values.mean(axis=0), values.std(axis=0)
    constant = scale <= 1e-12 * np.abs(centre)
    scale = np.where(constant | (scale == 0), 1.0, scale)
    return Standard(np.where(constant, 0.0, (values - centre) / scale), centre, scale)


def fit_linear(given: Standard, costs: Matrix, near: Linear | None = None) -> Linear:
    """The cheapest of: every constant, and linear fits for two or for many actions.

    costs [n, actions]; the result is for standardised values. The global risk is, up to a constant,
    the expected difference between the cost of the action taken and the cheapest (Bolukbasi et al.
    2017, section 3), so that is what every candidate is compared on; a simpler one wins a tie.
    `near` is a fit to similar costs, from which the search may start.
    """
    n, actions = costs.shape
    zero = np.zeros((actions, given.values.shape[1]))
    candidates = [Linear(zero, np.eye(actions)[action]) for action in range(actions)]
    cheapest = costs.min(axis=1, keepdims=True)
    sensible = np.flatnonzero((costs <= cheapest).any(axis=0))
    if len(sensible) > 1 and 0 < given.values.shape[1] < n:
        candidates += _pairs(given.values, costs, sensible)
        if len(sensible) > _PAIR:
            candidates += _many_way(given.values, costs, [*candidates, *([near] if near else [])])
    return min(candidates, key=lambda linear: linear.mean_cost(given.values, costs))


def _pairs(values: Matrix, costs: Matrix, sensible: NDArray[np.intp]) -> list[Linear]:
    """Two-way fits: the first sensible action (stopping, mostly) against each other one."""
    first, *others = sensible
    found = []
    for other in others:
        pair = _two_way(values, costs[:, [first, other]])
        if pair is not None:
            found.append(_spread(pair, np.array([first, other]), costs.shape[1]))
    return found


def _spread(linear: Linear, actions: NDArray[np.intp], count: int) -> Linear:
    """The same decisions among `count` actions: the others always score below the first."""
    weights = np.tile(linear.weights[0], (count, 1))
    bias = np.full(count, linear.bias[0] - 1 - abs(linear.bias[0]))
    weights[actions], bias[actions] = linear.weights, linear.bias
    return Linear(weights, bias)


def _two_way(values: Matrix, costs: Matrix) -> Linear | None:
    """Logistic regression of "the second is cheaper", weighted by how much it matters.

    Its own cut is kept. The exactly best cut for each lambda fits the sample closer, but then the
    policies of a sweep lie on a few corners only, and a loss between two of them cannot be met.
    None if only one action is ever cheaper.
    """
    gain = costs[:, 0] - costs[:, 1]
    better, weight = gain > 0, np.abs(gain)
    used = weight > 0
    if len(np.unique(better[used])) < _PAIR:
        return None
    model = LogisticRegression(
        C=1 / (_WEAK * len(gain) + _PRIOR), solver="newton-cholesky", tol=1e-3, max_iter=50
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # candidates are compared by cost
        model.fit(values[used], better[used], sample_weight=weight[used] / weight.mean())
    zero = np.zeros_like(model.coef_[0])
    return Linear(np.stack([zero, model.coef_[0]]), np.array([0.0, model.intercept_[0]]))


def _many_way(values: Matrix, costs: Matrix, known: Sequence[Linear]) -> list[Linear]:
    """Weighted multinomial logistic regression, and the smooth expected cost.

    The first is cross-entropy with weight max(R) - R_a on every action a, which has no bad minima
    but a slack bound; the second is what is really wanted. It is searched from the cheapest fit so
    far, so from a two-way fit or from the last lambda's: never from its own last minimum alone, or
    a whole sweep could stay in a bad one.
    """
    inputs = np.concatenate([values.T, np.ones((1, len(values)))])
    regret = costs - costs.min(axis=1, keepdims=True)
    weights = regret.max(axis=1, keepdims=True) - regret
    start = min(known, key=lambda linear: linear.mean_cost(values, costs))
    steady = _minimise(inputs, start, weights.T, _cross_entropy)
    return [steady, *(_minimise(inputs, one, regret.T, _expected_cost) for one in (start, steady))]


def _minimise(
    inputs: Matrix,
    start: Linear,
    of: Matrix,
    objective: Callable[[Matrix, Matrix], tuple[float, Matrix]],
) -> Linear:
    """L-BFGS over weights and bias, for inputs [features + 1, n] and costs or weights [actions, n].

    `objective` gives a mean over images and its slope by score [actions, n]. Images lie along the
    last axis: sums over few actions are ten times faster that way round.
    """
    of = np.ascontiguousarray(of)
    actions, n = of.shape
    scale = of.mean() or 1.0
    weak = _WEAK + _PRIOR / n

    def risk(flat: Matrix) -> tuple[float, Matrix]:
        weights = flat.reshape(actions, -1)
        value, slope = objective(weights @ inputs, of)
        total = value / scale + weak / 2 * (weights[:, :-1] ** 2).sum()
        pull = weak * weights
        pull[:, -1] = 0
        return float(total), (slope @ inputs.T / (n * scale) + pull).ravel()

    first = np.concatenate([start.weights, start.bias[:, None]], axis=1)
    found = minimize(risk, first.ravel(), jac=True, method="L-BFGS-B", options=_STEPS)
    weights = found.x.reshape(actions, -1)
    return Linear(weights[:, :-1], weights[:, -1])


def _expected_cost(scores: Matrix, regret: Matrix) -> tuple[float, Matrix]:
    """mean_i sum_a regret_a(i) softmax_a(scores_i)."""
    chosen = _softmax(scores)[0]
    expected = (chosen * regret).sum(axis=0)
    return float(expected.mean()), chosen * (regret - expected)


def _cross_entropy(scores: Matrix, weights: Matrix) -> tuple[float, Matrix]:
    """mean_i -sum_a weights_a(i) log softmax_a(scores_i)."""
    chosen, logarithm = _softmax(scores)
    value = -(weights * logarithm).sum(axis=0).mean()
    return float(value), chosen * weights.sum(axis=0) - weights


def _softmax(scores: Matrix) -> tuple[Matrix, Matrix]:
    """The softmax over actions of scores [actions, n], and its logarithm."""
    shifted = scores - scores.max(axis=0)
    powers = np.exp(shifted)
    total = powers.sum(axis=0)
    return powers / total, shifted - np.log(total)
