"""The parts of a fit: standardised values, smooth risks and their gradients, spread pairs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from policy import cost_sensitive
from policy.cost_sensitive import Linear, standardise

Matrix = NDArray[np.float64]
Objective = Callable[[Matrix, Matrix], tuple[float, Matrix]]
OBJECTIVES: list[Objective] = [cost_sensitive._expected_cost, cost_sensitive._cross_entropy]


def random_case(seed: int, actions: int = 3, n: int = 30) -> tuple[Matrix, Matrix]:
    """Scores and regrets, both [actions, n]; each image has an action without regret."""
    rng = np.random.default_rng(seed)
    regret = rng.exponential(size=(actions, n)) * (rng.random((actions, n)) < 0.8)
    return rng.normal(scale=3, size=(actions, n)), regret - regret.min(axis=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(5))
def test_the_slope_by_score_agrees_with_finite_differences(objective: Objective, seed: int) -> None:
    scores, of = random_case(seed)

    def value(flat: Matrix) -> float:
        return objective(flat.reshape(of.shape), of)[0]

    def slope(flat: Matrix) -> Matrix:
        return objective(flat.reshape(of.shape), of)[1].ravel() / of.shape[1]

    assert scipy.optimize.check_grad(value, slope, scores.ravel()) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_cost_is_that_of_drawing_actions(seed: int) -> None:
    scores, regret = random_case(seed)
    powers = np.exp(scores)
    chosen = powers / powers.sum(axis=0)
    value, _ = cost_sensitive._expected_cost(scores, regret)
    assert value == pytest.approx((chosen * regret).sum() / regret.shape[1])


@pytest.mark.parametrize("seed", range(5))
def test_the_cross_entropy_is_weighted_by_what_each_action_saves(seed: int) -> None:
    scores, weights = random_case(seed)
    powers = np.exp(scores)
    wanted = -(weights * np.log(powers / powers.sum(axis=0))).sum() / weights.shape[1]
    value, _ = cost_sensitive._cross_entropy(scores, weights)
    assert value == pytest.approx(wanted)


def test_scores_of_any_size_have_a_finite_risk() -> None:
    scores, regret = random_case(0)
    for objective in OBJECTIVES:
        value, slope = objective(1e4 * scores, regret)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
    sharp, _ = cost_sensitive._expected_cost(1e4 * scores, regret)
    assert sharp == pytest.approx(regret[scores.argmax(axis=0), np.arange(30)].mean(), rel=1e-4)


@pytest.fixture
def risks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Callable[[Matrix], Any], Matrix]]:
    """The functions that `_minimise` minimises and where it starts, caught on the way."""
    caught = []

    def minimize(risk: Callable[[Matrix], Any], start: Matrix, **options: Any) -> Any:
        caught.append((risk, start))
        return scipy.optimize.minimize(risk, start, **options)

    monkeypatch.setattr(cost_sensitive, "minimize", minimize)
    return caught


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_of_the_smooth_risk_agrees_with_finite_differences(
    seed: int, objective: Objective, risks: list[tuple[Callable[[Matrix], Any], Matrix]]
) -> None:
    rng = np.random.default_rng(seed)
    _, regret = random_case(seed, n=40)
    inputs = np.concatenate([rng.normal(size=(2, 40)), np.ones((1, 40))])
    start = Linear(rng.normal(size=(3, 2)), rng.normal(size=3))
    found = cost_sensitive._minimise(inputs, start, regret, objective)
    ((risk, first),) = risks
    for at in (first, rng.normal(size=9)):
        error = scipy.optimize.check_grad(lambda x: risk(x)[0], lambda x: risk(x)[1], at)
        assert error < 1e-6
    end = np.concatenate([found.weights, found.bias[:, None]], axis=1).ravel()
    assert risk(end)[0] < risk(first)[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_without_regret_the_smooth_risk_still_has_a_minimum(objective: Objective) -> None:
    start = Linear(np.ones((3, 1)), np.zeros(3))
    inputs = np.ones((2, 5))
    found = cost_sensitive._minimise(inputs, start, np.zeros((3, 5)), objective)
    assert np.isfinite(found.weights).all()
    assert np.abs(found.weights).max() < 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_values_are_standardised_and_decisions_carried_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, 4)) * 10.0 ** rng.integers(-3, 4, size=4)
    values += rng.normal(scale=100, size=4)
    given = standardise(values)
    np.testing.assert_allclose(given.values.mean(axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(given.values.std(axis=0), 1, atol=1e-8)
    linear = Linear(rng.normal(size=(3, 4)), rng.normal(size=3))
    original = given.original(linear)
    np.testing.assert_allclose(
        values @ original.weights.T + original.bias,
        given.values @ linear.weights.T + linear.bias,
        atol=1e-6,
    )
    np.testing.assert_array_equal(original.decide(values), linear.decide(given.values))


@pytest.mark.parametrize("level", [0.0, 0.1, -1 / 3, 1e6])
def test_a_constant_column_becomes_zero_and_stays_without_effect(level: float) -> None:
    values = np.stack([np.random.default_rng(0).random(999), np.full(999, level)], axis=1)
    given = standardise(values)
    assert not given.values[:, 1].any()
    assert np.isfinite(given.values).all()
    linear = Linear(np.array([[0.0, 0.0], [1.0, 7.0]]), np.array([0.0, -0.2]))
    original = given.original(linear)
    np.testing.assert_array_equal(original.decide(values), linear.decide(given.values))


def test_a_single_image_is_all_constant() -> None:
    assert standardise(np.array([[0.3, 5.0]])).values.tolist() == [[0, 0]]


@pytest.mark.parametrize("bias", [0.0, 3.0, -3.0])
def test_a_pair_of_actions_decides_the_same_among_more(bias: float) -> None:
    rng = np.random.default_rng(0)
    pair = Linear(np.stack([np.zeros(2), rng.normal(size=2)]), np.array([0.0, bias]))
    values = rng.normal(size=(100, 2))
    spread = cost_sensitive._spread(pair, np.array([3, 1]), 4)
    wanted = np.array([3, 1])[pair.decide(values)]
    np.testing.assert_array_equal(spread.decide(values), wanted)


def test_some_actions_keep_their_scores() -> None:
    linear = Linear(np.arange(6.0).reshape(3, 2), np.array([1.0, 2.0, 3.0]))
    some = linear.only(np.array([2, 0]))
    assert some.weights.tolist() == [[4, 5], [0, 1]]
    assert some.bias.tolist() == [3, 1]
