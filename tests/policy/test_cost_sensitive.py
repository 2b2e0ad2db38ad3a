import numpy as np
import pytest
from numpy.typing import NDArray

from policy import cost_sensitive
from policy.cost_sensitive import Linear, fit_linear, standardise

Matrix = NDArray[np.float64]


def fitted(values: Matrix, costs: Matrix) -> Linear:
    """A fit to values that are not standardised, for such values."""
    given = standardise(values)
    return given.original(fit_linear(given, costs))


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regularised next to nothing: what is then found shows that the right thing is looked for."""
    monkeypatch.setattr(cost_sensitive, "_WEAK", 1e-4)
    monkeypatch.setattr(cost_sensitive, "_PRIOR", 0.0)


def stop_or_go(seed: int, n: int = 1000) -> tuple[Matrix, Matrix]:
    """One feature; stopping is free where it is above 0.6 and costs 10 below; going costs 3."""
    values = np.random.default_rng(seed).random((n, 1))
    stop = np.where(values[:, 0] > 0.6, 0.0, 10.0)
    return values, np.stack([stop, np.full(n, 3.0)], axis=1)


def constant(linear: Linear) -> int | None:
    """The action that is always taken, None if that depends on the features."""
    return None if linear.weights.any() else int(linear.bias.argmax())


@pytest.mark.parametrize("actions", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_mean_cost_is_never_above_that_of_the_best_constant(seed: int, actions: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 3)) * 10.0 ** rng.integers(-6, 6, size=3)
    costs = rng.exponential(size=(60, actions)) - rng.random()
    linear = fitted(values, costs)
    assert linear.mean_cost(values, costs) <= costs.mean(axis=0).min() + 1e-12


@pytest.mark.usefixtures("sharp")
@pytest.mark.parametrize("seed", range(5))
def test_a_cut_that_divides_the_actions_is_found(seed: int) -> None:
    values, costs = stop_or_go(seed)
    linear = fitted(values, costs)
    assert linear.mean_cost(values, costs) <= 1.03 * costs.min(axis=1).mean()


@pytest.mark.parametrize("seed", range(5))
def test_weak_weights_miss_a_sharp_cut_by_little(seed: int) -> None:
    values, costs = stop_or_go(seed)
    linear = fitted(values, costs)
    assert linear.mean_cost(values, costs) <= 1.1 * costs.min(axis=1).mean()


@pytest.mark.usefixtures("sharp")
@pytest.mark.parametrize("seed", range(5))
def test_three_slices_of_a_line_are_found(seed: int) -> None:
    values = np.random.default_rng(seed).random((1000, 1))
    best = (values[:, 0] * 3).astype(int)
    costs = np.abs(np.arange(3) - best[:, None]).astype(float)
    linear = fitted(values, costs)
    assert linear.mean_cost(values, costs) < 0.02


@pytest.mark.usefixtures("sharp")
def test_going_on_is_learnt_where_it_matters_most() -> None:
    values = np.array([[0.0], [1.0]] * 50)
    costs = np.array([[0.0, 1.0], [100.0, 1.0]] * 50)
    costs[::10] = [3.0, 0.0]
    assert fitted(values, costs).decide(values).tolist() == [0, 1] * 50


@pytest.mark.parametrize("extra", [0.0, 9.0])
def test_an_action_that_is_always_dearest_does_not_stop_the_others_from_being_learnt(
    extra: float,
) -> None:
    values, costs = stop_or_go(0)
    dearest = costs.max(axis=1, keepdims=True) + extra
    alone = fitted(values, costs).mean_cost(values, costs)
    three = np.concatenate([costs, dearest], axis=1)
    assert fitted(values, three).mean_cost(values, three) <= 1.01 * alone + 1e-9


@pytest.mark.usefixtures("sharp")
def test_a_constant_feature_does_not_make_decisions_shaky() -> None:
    values, costs = stop_or_go(1)
    constant = np.full((1000, 1), 0.1)
    linear = fitted(np.concatenate([values, constant], axis=1), costs)
    shaken = np.concatenate([values, constant + 1e-9], axis=1)
    assert linear.mean_cost(shaken, costs) <= 1.05 * costs.min(axis=1).mean()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_features_and_costs_does_not_matter(scale: float) -> None:
    values, costs = stop_or_go(2)
    wanted = fitted(values, costs).decide(values)
    np.testing.assert_array_equal(fitted(values * scale, costs).decide(values * scale), wanted)
    np.testing.assert_array_equal(fitted(values, costs * scale).decide(values), wanted)


@pytest.mark.parametrize(
    "costs",
    [
        np.array([[1.0, 0.0, 2.0]] * 20),
        np.array([[1.0, 0.0]] * 20),
        np.array([[-1.0, -2.0]] * 20),
    ],
)
def test_one_action_that_is_always_best_is_a_constant(costs: Matrix) -> None:
    linear = fitted(np.random.default_rng(0).random((20, 2)), costs)
    assert constant(linear) == 1
    assert not linear.weights.any()


@pytest.mark.parametrize("costs", [np.zeros((20, 2)), np.ones((20, 4)), np.ones((20, 1))])
def test_of_actions_that_cost_the_same_the_first_is_taken(costs: Matrix) -> None:
    assert constant(fitted(np.random.default_rng(0).random((20, 2)), costs)) == 0


@pytest.mark.parametrize("near", [0, 1, 2])
def test_a_fit_may_start_near_another_and_is_as_good(near: int) -> None:
    rng = np.random.default_rng(3)
    given = standardise(rng.normal(size=(500, 3)))
    slopes = rng.normal(size=(3, 3))
    costs = given.values @ slopes.T + rng.exponential(size=(500, 3))
    alone = fit_linear(given, costs)
    start = [alone, Linear(np.zeros((3, 3)), np.eye(3)[1]), fit_linear(given, costs + np.eye(3)[1])]
    found = fit_linear(given, costs, start[near])
    best = costs.min(axis=1).mean()
    lost = alone.mean_cost(given.values, costs) - best
    assert found.mean_cost(given.values, costs) - best <= 1.1 * lost


@pytest.mark.parametrize("actions", [2, 3])
def test_images_to_which_no_choice_matters_do_not_count(actions: int) -> None:
    costs = np.ones((20, actions))
    costs[::2, 1] = 0
    linear = fitted(np.random.default_rng(0).random((20, 2)), costs)
    assert constant(linear) == 1


def test_fewer_images_than_features_only_allow_a_constant() -> None:
    values, costs = stop_or_go(0, n=4)
    wide = np.repeat(values, 6, axis=1)
    assert constant(fitted(wide, costs)) is not None


def test_features_that_say_nothing_leave_the_best_constant() -> None:
    _, costs = stop_or_go(0)
    linear = fitted(np.ones((1000, 2)), costs)
    assert constant(linear) == 1


def test_no_features_leave_the_best_constant() -> None:
    _, costs = stop_or_go(0)
    assert constant(fitted(np.zeros((1000, 0)), costs)) == 1


def test_the_first_of_equal_scores_is_taken() -> None:
    linear = Linear(np.zeros((3, 1)), np.array([0.0, 1.0, 1.0]))
    assert linear.decide(np.zeros((2, 1))).tolist() == [1, 1]
    assert constant(linear) == 1
    assert constant(Linear(np.array([[0.0], [1.0]]), np.zeros(2))) is None
