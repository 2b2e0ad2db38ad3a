import numpy as np
import pytest
from scipy.stats import beta, binom, multinomial

from policy import bounds
from policy.bounds import (
    at_least,
    binomial,
    hoeffding_bentkus,
    p_value,
    trinomial,
    upper_bound,
)
from policy.errors import InputError
from policy.losses import Objective

BOTH: list[Objective] = ["excess", "loss"]


def regrets(lost: int, gained: int, n: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [lost, gained, n - lost - gained])


def every_count(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of losses and gains that n images can have."""
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
    possible = lost + gained <= n
    return lost[possible], gained[possible]


def tail_by_convolution(found: int, n: int, mean: float, differing: float) -> float:
    one = np.array([(differing - mean) / 2, 1 - differing, (differing + mean) / 2])
    total = np.ones(1)
    for _ in range(n):
        total = np.convolve(total, one)
    return float(total[: found + n + 1].sum())


def test_the_binomial_p_value_is_the_chance_of_so_few_losses() -> None:
    assert p_value(regrets(0, 0, 10), 0.1, "excess") == pytest.approx(0.9**10)
    assert p_value(regrets(1, 0, 10), 0.1, "excess") == pytest.approx(0.9**10 + 0.9**9)


@pytest.mark.parametrize("n", [1, 2, 30, 1000, 200_000])
@pytest.mark.parametrize("chance", [0.0, 1e-4, 0.03, 0.5, 1.0])
def test_binomial_chances_are_those_of_scipy_stats(n: int, chance: float) -> None:
    counts = np.unique(
        np.clip(np.linspace(n * chance / 2 - 3, n * chance * 1.5 + 3, 40), -2, n + 2)
    )
    for k in counts.astype(int).tolist():
        assert binomial(k, n, chance) == pytest.approx(binom.cdf(k, n, chance), rel=1e-10)
        assert at_least(k, n, chance) == pytest.approx(binom.sf(k - 1, n, chance), rel=1e-10)


@pytest.mark.parametrize("chance", [0.0, 1e-6, 0.01, 0.4])
@pytest.mark.parametrize("n", [1, 50, 300_000])
def test_the_sum_over_gains_weighs_them_as_scipy_stats_does(n: int, chance: float) -> None:
    middle = round(n * chance)
    k = np.arange(max(middle - 5000, 0), min(middle + 5000, n) + 1)
    weights = binom.pmf(k, n, chance)
    ours = bounds._relative(k, n, chance)
    assert ours == pytest.approx(weights / weights.sum(), rel=1e-9, abs=1e-300)


def test_the_trinomial_p_value_is_that_of_the_most_that_labels_may_differ() -> None:
    most = float(beta.ppf(1 - 1e-4, 215, 786))  # Clopper-Pearson, 214 of 1,000
    exact = tail_by_convolution(8, 1000, 0.03, most)
    assert trinomial(111, 103, 1000, 0.03) == pytest.approx(exact + 1e-4)


@pytest.mark.parametrize("max_loss", [0.0, 0.02, 0.1])
def test_the_more_labels_differ_the_likelier_is_a_low_loss(max_loss: float) -> None:
    n = 150
    for found in range(int((n - 1) * max_loss) - 12, int((n - 1) * max_loss)):
        shares = np.linspace(max(max_loss, 1e-3), 0.5, 12)
        tails = [tail_by_convolution(found, n, max_loss, share) for share in shares]
        assert np.diff(tails).min() >= -1e-15


@pytest.mark.parametrize("n", [8, 25, 40])
@pytest.mark.parametrize("max_loss", [0.0, 0.03, 0.1, 0.3, 0.6])
def test_no_distribution_of_that_mean_passes_more_often_than_the_risk(
    n: int, max_loss: float
) -> None:
    lost, gained = every_count(n)
    p = np.array([trinomial(a, b, n, max_loss) for a, b in zip(lost, gained, strict=True)])
    counts = np.stack([lost, gained, n - lost - gained], axis=1)
    for differing in np.linspace(max(max_loss, 0.01), 1, 12):
        shares = [(differing + max_loss) / 2, (differing - max_loss) / 2, 1 - differing]
        chance = multinomial.pmf(counts, n, np.maximum(shares, 0))
        for risk in (0.01, 0.05, 0.2, 0.5):
            assert chance[p <= risk].sum() <= risk


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_upper_bound_is_below_the_truth_at_most_at_the_risk(confidence: float) -> None:
    n = 16
    lost, gained = every_count(n)
    bounds = np.array(
        [
            upper_bound(regrets(a, b, n), "loss", confidence)
            for a, b in zip(lost, gained, strict=True)
        ]
    )
    counts = np.stack([lost, gained, n - lost - gained], axis=1)
    for shares in ((0.1, 0.05, 0.85), (0.3, 0.3, 0.4), (0.02, 0.0, 0.98), (0.05, 0.2, 0.75)):
        chance = multinomial.pmf(counts, n, shares)
        assert chance[bounds < shares[0] - shares[1]].sum() <= 1 - confidence


def test_the_upper_bound_of_an_excess_is_that_of_clopper_and_pearson() -> None:
    bound = upper_bound(regrets(7, 0, 200), "excess", 0.95)
    assert binom.cdf(7, 200, bound) == pytest.approx(0.05)
    assert upper_bound(regrets(5, 0, 5), "excess", 0.95) == 1


@pytest.mark.parametrize("objective", BOTH)
def test_the_upper_bound_is_the_least_loss_that_passes(objective: Objective) -> None:
    found = regrets(9, 0 if objective == "excess" else 4, 500)
    bound = upper_bound(found, objective, 0.95)
    assert p_value(found, bound + 1e-9, objective) <= 0.05
    assert p_value(found, bound - 1e-6, objective) > 0.05


@pytest.mark.parametrize("objective", BOTH)
def test_without_images_nothing_is_proved(objective: Objective) -> None:
    assert p_value(np.zeros(0), 0.5, objective) == 1
    assert upper_bound(np.zeros(0), objective, 0.95) == 1


def test_a_policy_that_gains_is_proved_to_gain() -> None:
    assert upper_bound(regrets(10, 200, 2000), "loss", 0.95) < -0.08


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (12, 10), (60, 55), (200, 0)])
def test_the_trinomial_bound_is_tighter_than_those_that_know_less(lost: int, gained: int) -> None:
    n = 2000
    bound = upper_bound(regrets(lost, gained, n), "loss", 0.95)
    assert hoeffding_bentkus((lost - gained) / n, n, bound) > 0.05
    if gained:
        most_lost = upper_bound(regrets(lost, 0, n), "excess", 0.975)
        least_gained = 1 - upper_bound(regrets(n - gained, 0, n), "excess", 0.975)
        assert bound < most_lost - least_gained


def test_labels_that_mostly_differ_are_left_to_hoeffding_and_bentkus() -> None:
    assert trinomial(350, 350, 1000, 0.1) > hoeffding_bentkus(0, 1000, 0.1)
    assert trinomial(350, 350, 1000, 0.1) < 0.05


def test_more_loss_than_labels_can_differ_is_refuted_up_to_the_risk_of_the_bound_on_that() -> None:
    assert trinomial(1, 0, 1000, 0.5) == 1e-4


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("max_loss", [0.0, 0.1, 0.5, 1.0])
def test_hoeffding_bentkus_holds_for_the_widest_distribution(n: int, max_loss: float) -> None:
    lost = np.arange(n + 1)
    p = np.array([hoeffding_bentkus((2 * k - n) / n, n, max_loss) for k in lost])
    chance = binom.pmf(lost, n, (1 + max_loss) / 2)
    for risk in (0.01, 0.05, 0.2):
        assert chance[p <= risk].sum() <= risk


def test_the_exact_tests_are_as_fast_for_a_million_images() -> None:
    n = 10**6
    assert trinomial(20_000, 15_000, n, 0.00532) <= 0.05 < trinomial(20_000, 15_000, n, 0.00530)
    assert binomial(5_000, n, 0.00512) <= 0.05 < binomial(5_000, n, 0.00511)


@pytest.mark.parametrize(("objective", "value"), [("excess", -1.0), ("loss", 0.5), ("loss", 2.0)])
def test_a_regret_the_objective_does_not_know_is_refused(
    objective: Objective, value: float
) -> None:
    with pytest.raises(InputError, match=rf"1 of 3 regrets are none of .* the first {value:g}"):
        p_value(np.array([0, 1, value]), 0.1, objective)
    with pytest.raises(InputError, match="regrets are none of"):
        upper_bound(np.array([np.nan]), objective, 0.95)
