"""The audit's choice of images, and what disagreement says of excess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.answers import Answers
from policy.audit import audited, disagrees
from policy.errors import InputError
from policy.losses import regret
from policy.split import hash_of_keys

KEYS = [f"image-{i}" for i in range(20_000)]


def _answers(rng: np.random.Generator, n: int, classes: int = 8) -> Answers:
    order = rng.permuted(np.tile(np.arange(classes, dtype=np.int32), (n, 1)), axis=1)
    probabilities = -np.sort(-rng.dirichlet(np.ones(classes), n).astype(np.float32), axis=1)
    return Answers(order, probabilities, np.zeros(n, np.float32))


def test_the_same_images_are_audited_in_any_order_and_company() -> None:
    chosen = audited(KEYS, 0.1, seed=3)
    assert np.array_equal(audited(KEYS[::-1], 0.1, seed=3), chosen[::-1])
    assert np.array_equal(audited(KEYS[:10], 0.1, seed=3), chosen[:10])
    assert abs(chosen.mean() - 0.1) < 0.01


def test_a_larger_fraction_audits_the_same_images_and_more() -> None:
    assert (audited(KEYS, 0.2, 0) >= audited(KEYS, 0.1, 0)).all()
    assert not audited(KEYS, 0, 0).any()
    assert audited(KEYS, 1, 0).all()


def test_the_audit_is_independent_of_the_splits_of_the_same_seed() -> None:
    split, chosen = hash_of_keys(KEYS, 3), audited(KEYS, 0.5, 3)
    assert abs(chosen[split < 0.5].mean() - 0.5) < 0.02


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"wanted 0 \(no audit\) to 1"):
        audited(KEYS, fraction, 0)


@given(st.integers(0, 2**32))
def test_top1_disagreement_is_never_below_either_regret(seed: int) -> None:
    rng = np.random.default_rng(seed)
    early, full = _answers(rng, 40), _answers(rng, 40)
    truth = rng.integers(0, 8, 40).astype(np.int32)
    found = disagrees(early, full.classes[:, 0], "top1")
    assert (found >= regret(early, full, truth, "top1", "excess")).all()
    assert (found >= regret(early, full, truth, "top1", "loss")).all()


def test_top5_disagreement_can_miss_an_excess_where_full_is_right_with_its_second() -> None:
    probabilities = np.full((1, 8), 0.125, np.float32)
    early = Answers(
        np.array([[0, 1, 2, 3, 4, 5, 6, 7]], np.int32), probabilities, np.zeros(1, np.float32)
    )
    full = Answers(
        np.array([[0, 7, 1, 2, 3, 4, 5, 6]], np.int32), probabilities, np.zeros(1, np.float32)
    )
    truth = np.array([7], np.int32)
    assert regret(early, full, truth, "top5", "excess").tolist() == [1.0]
    assert disagrees(early, full.classes[:, 0], "top5").tolist() == [False]
