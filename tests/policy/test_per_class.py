import numpy as np
import pytest

from policy.per_class import STAYS, Choice, Levels, fit_choice, levels_of


def made(n: int, classes: int, seed: int = 0) -> Levels:
    rng = np.random.default_rng(seed)
    return levels_of(rng.random(n), rng.integers(0, classes, n).astype(np.int32), classes)


def halves(n: int) -> list[np.ndarray]:
    return [np.arange(n)[start::2] for start in (0, 1)]


def test_a_level_counts_the_cuts_that_a_score_reaches() -> None:
    given = levels_of(np.array([0.1, 0.4, 0.9]), np.zeros(3, np.int32), 2)
    assert given.cuts.tolist() == [0.25, 0.65]
    assert given.level.tolist() == [0, 1, 2]


def test_a_choice_sends_on_who_is_below_the_threshold_of_its_class() -> None:
    given = Levels(np.array([0.5]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 3)
    choice = Choice(below=np.array([1, 0, 0]), way=np.array([4, 0, 0]))
    assert choice.taken(given).tolist() == [4, STAYS, STAYS, STAYS]
    everybody = Choice(below=np.array([0, 2, 0]), way=np.array([0, 1, 0]))
    assert everybody.taken(given).tolist() == [STAYS, STAYS, 1, 1]


def test_each_class_gets_the_threshold_that_suits_it() -> None:
    given = made(4000, 2)
    # going on pays below 0.25 for class 0, and below 0.75 for class 1
    ends = np.where(given.predicted == 0, 0.25, 0.75)
    score = np.concatenate([[0.0], given.cuts])[given.level]
    choice = fit_choice(given, [np.where(score < ends, -1.0, 1.0)], halves(4000)).choice
    cuts = np.concatenate([[-np.inf], given.cuts, [np.inf]])
    assert cuts[choice.below] == pytest.approx([0.25, 0.75], abs=0.03)


def test_each_class_goes_the_way_that_suits_it() -> None:
    given = made(1000, 3)
    extra = [np.where(given.predicted == best, -1.0, 1.0) for best in (2, 0)]
    choice = fit_choice(given, extra, halves(1000)).choice
    assert choice.way[[2, 0]].tolist() == [0, 1]
    assert (choice.below > 0).tolist() == [True, False, True]


def test_a_class_without_images_gets_the_threshold_of_all() -> None:
    given = made(2000, 5)
    rare = Levels(given.cuts, given.level, given.predicted, 6)
    extra = np.where(given.level < len(given.cuts) / 2, -1.0, 1.0)
    below = fit_choice(rare, [extra], halves(2000)).choice.below
    assert np.abs(below - below[5]).max() <= 1


def test_where_classes_are_all_alike_and_rare_they_get_one_threshold() -> None:
    rng = np.random.default_rng(1)
    given = made(2000, 400)
    extra = 1 - 4.0 * (rng.random(2000) > given.level / len(given.cuts))
    choice = fit_choice(given, [extra], halves(2000)).choice
    assert choice.below.std() < 0.15 * len(given.cuts)


def test_what_an_image_would_do_is_decided_by_the_half_that_it_is_not_in() -> None:
    given = made(1000, 2)
    first, second = halves(1000)
    extra = np.ones(1000)
    extra[first] = -1.0  # only the first half gains from going on
    fitted = fit_choice(given, [extra], [first, second])
    assert (fitted.taken[first] == STAYS).all()
    assert (fitted.taken[second] == 0).all()


def test_a_choice_made_on_noise_shows_no_gain() -> None:
    rng = np.random.default_rng(2)
    given = made(2000, 200)
    extra = rng.choice([-10.0, 10.5], 2000)
    fitted = fit_choice(given, [extra], halves(2000))
    assert extra[fitted.taken == 0].sum() > -0.1 * 2000 * 10


def test_no_images_at_all_stay() -> None:
    given = made(10, 2)
    nobody = [np.array([], dtype=np.intp)] * 2
    assert fit_choice(given, [-np.ones(10)], nobody).choice.below.tolist() == [0, 0]
