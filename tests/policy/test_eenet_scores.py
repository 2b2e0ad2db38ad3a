import numpy as np
import pytest
from scipy.optimize import check_grad

from policy.eenet_scores import EDGE, ROUND, cross_entropy, minimise, score_loss


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_between_its_bends_the_loss_is_the_cross_entropy(right: float) -> None:
    scores = np.linspace(ROUND, 1 - ROUND, 50)

    loss, _, _ = cross_entropy(scores, np.full(50, right))

    assert loss == pytest.approx(-np.log(scores if right else 1 - scores))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_the_loss_is_convex_and_smooth_and_has_the_slopes_it_says(right: float) -> None:
    scores = np.linspace(-1, 2, 30_001)

    loss, slope, bend = cross_entropy(scores, np.full(len(scores), right))

    step = scores[1] - scores[0]
    assert np.diff(loss) == pytest.approx((slope[1:] + slope[:-1]) / 2 * step, abs=1e-5)
    assert (np.diff(slope) > -1e-9).all()
    assert np.abs(np.diff(slope)).max() < 2 * step / EDGE**2  # no jump
    assert np.diff(slope)[bend[1:] == bend[:-1]] == pytest.approx(
        (bend[1:] * step)[bend[1:] == bend[:-1]], abs=1e-6
    )


def test_a_wrong_score_beyond_the_clamp_still_has_a_slope() -> None:
    _, slope, _ = cross_entropy(np.array([-3.0, 4.0]), np.array([1.0, 0.0]))

    assert slope.tolist() == [-1 / EDGE, 1 / EDGE]


def test_a_right_score_beyond_the_clamp_costs_nothing_more() -> None:
    loss, slope, _ = cross_entropy(np.array([1 + ROUND, 9.0]), np.array([1.0, 1.0]))

    assert loss[0] == loss[1] == pytest.approx(0, abs=2e-3)
    assert slope.tolist() == [0, 0]


def samples(rng: np.random.Generator, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inputs = np.column_stack([rng.normal(size=(n, 4)), np.ones(n)])
    right = (rng.random(n) < 1 / (1 + np.exp(-2 * inputs[:, 0]))).astype(float)
    share = rng.random(n)
    return inputs, right, share / share.sum()


def test_the_gradient_of_the_score_loss_is_that_of_its_numbers() -> None:
    rng = np.random.default_rng(0)
    given = samples(rng)

    for _ in range(5):
        weights = rng.normal(size=5) * 0.5
        error = check_grad(
            lambda at: score_loss(at, *given)[0], lambda at: score_loss(at, *given)[1], weights
        )
        assert error < 1e-4 * (1 + np.linalg.norm(score_loss(weights, *given)[1]))


def test_newton_steps_end_where_no_other_weights_are_better() -> None:
    rng = np.random.default_rng(1)
    given = samples(rng)

    found = minimise(np.array([0.0, 0, 0, 0, 0.5]), *given)

    least, gradient = score_loss(found, *given)
    assert np.abs(gradient).max() < 0.02
    nearby = [found + rng.normal(size=5) * scale for scale in (1e-3, 1e-2, 0.1) for _ in range(30)]
    assert least <= min(score_loss(weights, *given)[0] for weights in nearby) + 1e-5


def test_newton_steps_reach_the_minimum_where_the_inputs_separate_right_from_wrong() -> None:
    rng = np.random.default_rng(18)
    inputs = np.column_stack([rng.standard_t(2, size=(60, 30)), np.ones(60)])
    right, share = (rng.random(60) < 0.6).astype(float), np.full(60, 1 / 60)

    found = minimise(np.append(np.zeros(30), right.mean()), inputs, right, share)

    # steps that are only ever halved end at 0.319
    assert score_loss(found, inputs, right, share)[0] < 0.001


def test_newton_steps_end_where_rounding_hides_what_is_left_to_gain() -> None:
    inputs = np.column_stack([np.array([0.3, 0.7, 0.1, 0.9]), np.ones(4)])
    given = inputs, np.array([0.0, 1.0, 1.0, 0.0]), np.full(4, 0.25)
    best = np.array([0.0, 0.5])
    for _ in range(50):
        best = minimise(best, *given)

    assert score_loss(minimise(best, *given), *given)[0] <= score_loss(best, *given)[0]


def test_newton_steps_stay_where_nothing_is_left_to_gain() -> None:
    inputs = np.ones((10, 1))

    found = minimise(np.array([3.0]), inputs, np.ones(10), np.full(10, 0.1))

    assert found.tolist() == [3.0]
