from dataclasses import replace

import numpy as np
import populations
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from policy.compare import Comparison, Promise, broken, cheaper, compare
from policy.errors import InputError
from policy.evaluate import realised
from policy.losses import Objective
from policy.mixture import Mixture, Routing
from policy.problem import Problem

PROMISE = Promise("top1", "excess", 0.05, 0.9)
RISK = 0.1
DEAREST = 10.0
Floats = NDArray[np.float64]


def lost(n: int, of: int) -> Floats:
    """Regrets of `of` images, n of them 1."""
    return np.repeat([1.0, 0.0], [n, of - n])


def at(cost: float, n: int) -> Floats:
    return np.full(n, cost)


def found(new: tuple[float, int], old: tuple[float, int], n: int = 400) -> Comparison:
    """Compare by (cost of every image, images lost)."""
    costs = at(new[0], n), at(old[0], n)
    return compare(costs, (lost(new[1], n), lost(old[1], n)), DEAREST, PROMISE)


def test_a_cheaper_policy_that_keeps_the_promise_is_better() -> None:
    comparison = found((2.0, 4), (5.0, 4))
    assert comparison.better
    assert (comparison.n, comparison.new_cost, comparison.old_cost) == (400, 2.0, 5.0)
    assert (comparison.new_loss, comparison.old_loss) == (0.01, 0.01)
    said = "on 400 new held-out images it keeps top1 excess at most 0.05 at 90% confidence and "
    assert comparison.reason.startswith(f"{said}costs 2 against 5 per image, less by more than ch")


def test_a_dearer_policy_is_better_only_if_the_old_one_breaks_the_promise() -> None:
    assert not found((5.0, 4), (2.0, 4)).better
    assert not found((5.0, 4), (2.0, 24)).better  # 6 % lost of 5 % promised: may be chance
    comparison = found((5.0, 4), (2.0, 60))
    assert comparison.better
    assert (
        "keeps top1 excess at most 0.05 at 90% confidence, and the one in use does not (p = "
        in (comparison.reason)
    )
    assert "it loses 1.00%, the one in use 15.00%; it costs 5 against 2" in comparison.reason


def test_a_policy_that_does_not_keep_the_promise_is_never_better() -> None:
    for old in ((9.0, 4), (2.0, 200)):
        comparison = found((1.0, 20), old)
        assert not comparison.better
        assert "it loses 5.00%, the one in use" in comparison.reason
        assert "which does not prove top1 excess at most 0.05 at 90% confidence (p = 0.5" in (
            comparison.reason
        )


def test_too_few_images_are_said_to_be_too_few() -> None:
    comparison = found((1.0, 0), (9.0, 0), n=44)
    assert not comparison.better
    assert comparison.reason == (
        "44 new held-out images are too few to prove top1 excess at most 0.05 at 90% confidence: "
        "that takes at least 45; label more"
    )
    assert found((1.0, 0), (9.0, 0), n=45).better


def test_as_cheap_a_policy_is_not_better() -> None:
    assert "costs 2 against 2 per image: not less" in found((2.0, 4), (2.0, 4)).reason


def test_a_little_cheaper_on_few_images_may_be_chance() -> None:
    rng = np.random.default_rng(0)
    costs = rng.choice([1.0, 10.0], 60), rng.choice([1.0, 10.0], 60)
    new, old = sorted(costs, key=np.mean)
    comparison = compare((new, old), (lost(0, 60), lost(0, 60)), DEAREST, PROMISE)
    assert not comparison.better
    assert "no less than chance explains (p = " in comparison.reason


def test_no_image_compares_nothing() -> None:
    nothing = np.empty(0)
    with pytest.raises(InputError, match="no image to compare two policies on; label more"):
        compare((nothing, nothing), (nothing, nothing), DEAREST, PROMISE)


def test_the_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    saved = rng.uniform(-4, 6, 100)
    assert cheaper(saved, DEAREST) == pytest.approx(cheaper(np.sort(saved), DEAREST))


def test_networks_that_cost_nothing_save_nothing() -> None:
    assert cheaper(np.zeros(5), 0.0) == 1.0


def test_a_broken_promise_is_refuted_by_the_exact_tail() -> None:
    assert broken(lost(9, 100), 0.05, "excess") == pytest.approx(1 - binom.cdf(8, 100, 0.05))
    assert broken(lost(0, 100), 0.05, "excess") == 1.0
    assert broken(lost(30, 100), 0.05, "loss") < 0.01
    assert broken(lost(5, 100), 0.05, "loss") == 1.0


def rejected(draws: list[Floats], risk: float) -> int:
    return sum(cheaper(draw, 1.0) <= risk for draw in draws)


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("kind", ["even", "rare losses", "rare savings", "small"])
def test_what_saves_nothing_looks_cheaper_no_more_often_than_the_risk(n: int, kind: str) -> None:
    rng = np.random.default_rng(1)

    def draw() -> Floats:
        if kind == "even":
            return rng.choice([-1.0, 1.0], n)
        if kind == "small":
            return rng.normal(0, 0.05, n).clip(-1, 1)
        rare = np.where(rng.random(n) < 0.02, -1.0, 0.02 / 0.98)
        return rare if kind == "rare losses" else -rare

    runs = 2_000
    wrong = rejected([draw() for _ in range(runs)], RISK)
    assert wrong <= binom.ppf(0.999, runs, RISK)


def test_a_true_saving_is_seen() -> None:
    rng = np.random.default_rng(2)
    draws = [np.where(rng.random(400) < 0.15, 0.8, -0.02) for _ in range(100)]
    assert rejected(draws, 0.025) == 100


def drawn(population: Problem, rng: np.random.Generator, n: int) -> Problem:
    """Images drawn from the population, each with a key of its own."""
    rows = rng.integers(0, len(population), n)
    keys = [f"{number}.{rng.integers(1 << 40)}" for number in range(n)]
    return replace(population.take(rows), keys=keys)


def promotions(
    policies: tuple[Routing, Routing], population: Problem, promise: Promise, runs: int
) -> int:
    """How often the first policy takes the place of the second over many simulated refits."""
    rng, better = np.random.default_rng(3), 0
    dearest = population.graph.cost(("small", "full"))
    for _ in range(runs):
        images = drawn(population, rng, 300)
        (new_cost, new_lost), (old_cost, old_lost) = (realised(p, images) for p in policies)
        better += compare((new_cost, old_cost), (new_lost, old_lost), dearest, promise).better
    return better


@pytest.mark.parametrize("slack", [1.7, 1.0], ids=["kept with room", "only just kept"])
@pytest.mark.parametrize("objective", ["excess", pytest.param("loss", marks=pytest.mark.slow)])
def test_an_equal_policy_is_promoted_by_chance_no_more_often_than_the_risk(
    objective: Objective, slack: float
) -> None:
    """Two mixtures of the same two policies: equal in all but which images follow which."""
    population = populations.population(objective)
    safe, bold = populations.thresholds()[3], populations.thresholds()[9]
    equals = tuple(Mixture(safe, bold, 0.5, seed) for seed in (1, 2))
    truth = np.mean([realised(policy, population)[1].mean() for policy in (safe, bold)])
    promise = Promise("top1", objective, float(truth) * slack, 0.9)
    runs = 500
    assert promotions(equals, population, promise, runs) <= binom.ppf(0.999, runs, RISK)


def test_a_policy_that_breaks_the_promise_is_promoted_no_more_often_than_the_risk() -> None:
    population = populations.population("excess")
    new, old = populations.thresholds()[11], populations.thresholds()[1]
    truth = float(realised(new, population)[1].mean())
    runs = 500
    promise = Promise("top1", "excess", truth, 0.9)
    assert promotions((new, old), population, promise, runs) <= binom.ppf(0.999, runs, RISK)


def test_a_policy_that_is_truly_better_is_nearly_always_promoted() -> None:
    population = populations.population("excess")
    new, old = populations.thresholds()[7], populations.thresholds()[2]
    truth = float(realised(new, population)[1].mean())
    promise = Promise("top1", "excess", truth + 0.06, 0.9)
    assert promotions((new, old), population, promise, 200) >= 190
