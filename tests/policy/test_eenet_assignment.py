from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from policy.eenet_assignment import (
    Aim,
    Assignment,
    aim,
    assigned,
    assignment_loss,
    fit_assignment,
    start_assignment,
)

COSTS = np.array([1.0, 2.0, 4.0])


def case(budget: float, cost_weight: float = 10.0) -> tuple[Assignment, np.ndarray, Aim]:
    """Three exits and 40 images, in float64."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(3, 40, 5))
    wanted = rng.dirichlet([1, 1, 1], 40)
    assignment = start_assignment(3, 5, rng)
    double = replace(assignment, parameters=assignment.parameters.astype(np.float64))
    return double, inputs, Aim(wanted, COSTS, budget, cost_weight)


@pytest.mark.parametrize("budget", [1.2, 3.5])
@pytest.mark.parametrize("cost_weight", [0.0, 10.0])
def test_the_gradient_of_the_assignment_loss_is_that_of_its_numbers(
    budget: float, cost_weight: float
) -> None:
    assignment, inputs, goal = case(budget, cost_weight)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        return assignment_loss(replace(assignment, parameters=parameters), inputs, goal)

    error = check_grad(lambda at: loss(at)[0], lambda at: loss(at)[1], assignment.parameters)
    assert error < 1e-5


def test_the_loss_is_the_divergence_and_the_price_of_missing_the_budget() -> None:
    shares = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    wanted = np.array([[0.25, 0.25, 0.5], [0.2, 0.2, 0.6]])

    loss, _ = Aim(wanted, COSTS, budget=2.0, cost_weight=3.0).loss(shares)

    divergence = (0.25 * np.log(0.5) + 0.5 * np.log(2)) / 2
    cost = (0.5 + 0.5 + 1.0 + 0.2 + 0.4 + 2.4) / 2
    assert loss == pytest.approx(divergence + 3 * abs(cost - 2) / 2)


def test_every_sample_is_shared_among_the_exits_in_full() -> None:
    assignment, inputs, _ = case(2.0)

    assert assigned(assignment, inputs).sum(axis=1) == pytest.approx(1)


def test_fitting_lowers_the_loss_and_brings_the_mean_cost_to_the_budget() -> None:
    assignment, inputs, goal = case(1.5)

    fitted = fit_assignment(assignment, inputs, goal, 300, np.random.default_rng(0))

    assert assignment_loss(fitted, inputs, goal)[0] < assignment_loss(assignment, inputs, goal)[0]
    assert (assigned(fitted, inputs) @ COSTS).mean() == pytest.approx(1.5, rel=0.02)


def test_the_wanted_assignment_follows_the_scores_the_sharper_the_lower_beta() -> None:
    scores = np.array([[0.5, 1.0, 3.0], [-1.0, 0.5, 0.5]])

    sharp = aim(scores, 0.25, COSTS, 2.0, 10.0).wanted
    flat = aim(scores, 1.0, COSTS, 2.0, 10.0).wanted

    assert flat[0] == pytest.approx([0.2, 0.4, 0.4])
    assert sharp[0] == pytest.approx([1 / 33, 16 / 33, 16 / 33])
    assert flat[1] == pytest.approx([0.001 / 1.001, 0.5 / 1.001, 0.5 / 1.001])
