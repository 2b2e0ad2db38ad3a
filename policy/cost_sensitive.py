"""Learning to take the cheapest of several actions when the cost of each is known in hindsight."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Matrix = NDArray[np.float64]

_PAIR = 2

_WEAK = 1e-4  # L2 on standardised weights: too weak to bend a fit, keeps separable data finite


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


def fit_linear(values: Matrix, costs: Matrix) -> Linear:
    """The cheapest of: every constant, and linear fits for two or for many actions.

    values [n, features], costs [n, actions]. The global risk is, up to a constant, the expected
    difference between the cost of the action taken and the cheapest (Bolukbasi et al. 2017,
    section 3), so that is what every candidate is compared on.
    """
    n, actions = costs.shape
    sensible = (costs < costs.max(axis=1, keepdims=True)).any(axis=0)
    if _PAIR <= sensible.sum() < actions:
        return _spread(fit_linear(values, costs[:, sensible]), sensible)
    zero = np.zeros((actions, values.shape[1]))
    candidates = [Linear(zero, np.eye(actions)[action]) for action in range(actions)]
    cheapest = costs.min(axis=1, keepdims=True)
    if actions > 1 and len(np.unique(costs.argmin(axis=1))) > 1 and 0 < values.shape[1] < n:
        scale = values.std(axis=0)
        centre = values.mean(axis=0)
        scale[scale <= 1e-12 * np.abs(centre)] = 1.0  # constant but for rounding
        standard = (values - centre) / scale
        found = (
            _two_way(standard, costs) if actions == _PAIR else _many_way(standard, costs - cheapest)
        )
        for linear in found:
            weights = linear.weights / scale
            candidates.append(Linear(weights, linear.bias - weights @ centre))
    return min(candidates, key=lambda linear: linear.mean_cost(values, costs))


def _spread(linear: Linear, sensible: NDArray[np.bool_]) -> Linear:
    """The same decisions with the other actions added: each always scores below a sensible one."""
    rows = np.maximum(np.cumsum(sensible) - 1, 0)
    weights, bias = linear.weights[rows], linear.bias[rows]
    return Linear(weights, np.where(sensible, bias, bias - 1 - np.abs(bias)))


def _two_way(standard: Matrix, costs: Matrix) -> list[Linear]:
    """Logistic regression of "going on is cheaper", weighted by how much it matters.

    Its own cut is kept. The exactly best cut for each lambda fits the sample closer, but then the
    policies of a sweep lie on a few corners only, and a loss between two of them cannot be met.
    """
    gain = costs[:, 0] - costs[:, 1]
    found = _logistic(standard, (gain > 0).astype(np.intp), np.abs(gain))
    return [] if found is None else [found]


def _many_way(standard: Matrix, regret: Matrix) -> list[Linear]:
    """Weighted multinomial regression, and the smooth expected cost from there."""
    n, actions = regret.shape
    weights = regret.max(axis=1, keepdims=True) - regret
    start = _logistic(
        np.repeat(standard, actions, axis=0), np.tile(np.arange(actions), n), weights.ravel()
    )
    if start is None or len(start.bias) < actions:
        return []
    return [start, _smooth(standard, regret, start)]


def _logistic(
    standard: Matrix, labels: NDArray[np.intp], weights: NDArray[np.float64]
) -> Linear | None:
    """Weighted logistic regression; None if only one action has any weight."""
    used = weights > 0
    if len(np.unique(labels[used])) < _PAIR:
        return None
    model = LogisticRegression(C=1 / _WEAK, max_iter=100, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # candidates are compared by cost
        model.fit(standard[used], labels[used], sample_weight=weights[used] / weights.mean())
    if len(model.classes_) == _PAIR:
        zero = np.zeros_like(model.coef_[0])
        return Linear(np.stack([zero, model.coef_[0]]), np.array([0.0, model.intercept_[0]]))
    return Linear(model.coef_, model.intercept_)


def _smooth(standard: Matrix, regret: Matrix, start: Linear) -> Linear:
    """Minimise sum_i sum_a regret_a(i) softmax_a(W f_i) by L-BFGS."""
    n, actions = regret.shape
    inputs = np.concatenate([standard, np.ones((n, 1))], axis=1)
    scale = regret.mean() or 1.0

    def risk(flat: Matrix) -> tuple[float, Matrix]:
        weights = flat.reshape(actions, -1)
        chosen = softmax(inputs @ weights.T, axis=1)
        expected = (chosen * regret).sum(axis=1, keepdims=True)
        slope = (chosen * (regret - expected)).T @ inputs / (n * scale) + _WEAK * weights
        value = expected.mean() / scale + _WEAK / 2 * (weights**2).sum()
        return float(value), slope.ravel()

    first = np.concatenate([start.weights, start.bias[:, None]], axis=1)
    found = minimize(risk, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 60})
    weights = found.x.reshape(actions, -1)
    return Linear(weights[:, :-1], weights[:, -1])
