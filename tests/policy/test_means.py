import by_hand
import numpy as np
import pytest
import tiny

from policy.answers import Answers, answers_from_logits, answers_from_probabilities
from policy.errors import InputError
from policy.means import Mean, weighted_mean


def random_part(rng: np.random.Generator, n: int, classes: int, k: int) -> Answers:
    """The k best of some classes; probabilities are often equal, and some are 0."""
    steps = rng.integers(0, 4, size=(n, classes)).astype(np.float64)
    steps[:, 0] += steps.sum(axis=1) == 0
    probabilities = (steps / steps.sum(axis=1, keepdims=True)).astype(np.float32)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k].astype(np.int32)
    return answers_from_probabilities(order, np.take_along_axis(probabilities, order, axis=1))


def dense(part: Answers, classes: int) -> np.ndarray:
    """[n, classes], with 0 for a class that is not listed."""
    found = np.zeros((len(part), classes))
    np.put_along_axis(found, part.classes.astype(np.intp), part.probabilities, axis=1)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_a_mean_is_that_of_all_classes_where_those_not_listed_count_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, parts = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    widths = rng.integers(1, classes + 1, size=parts)
    given = [random_part(rng, 12, classes, int(k)) for k in widths]
    weights = rng.exponential(size=parts) + 0.01
    found = weighted_mean(given, weights.tolist())

    shares = weights / weights.sum()
    wanted = sum(share * dense(part, classes) for share, part in zip(shares, given, strict=True))
    k = int(widths.min())
    assert found.classes.shape == found.probabilities.shape == (12, k)
    assert (found.classes.dtype, found.probabilities.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(
        found.probabilities, -np.sort(-wanted, axis=1)[:, :k], rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        found.probabilities, np.take_along_axis(wanted, found.classes, axis=1), rtol=1e-6, atol=1e-9
    )
    for row in found.classes.tolist():
        assert len(set(row)) == k


@pytest.mark.parametrize("seed", range(20))
def test_a_mean_is_the_one_added_up_class_by_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = [random_part(rng, 10, 6, int(k)) for k in rng.integers(1, 7, size=3)]
    weights = (2.0 ** rng.integers(-2, 3, size=3)).tolist()
    found = weighted_mean(given, weights)
    for i in range(10):
        wanted = by_hand.mean_of_lists([by_hand.ranked(part, i) for part in given], weights)
        np.testing.assert_allclose(found.probabilities[i], [p for _, p in wanted], atol=1e-6)
        assert found.entropy[i] == pytest.approx(by_hand.entropy_of(wanted), abs=1e-5)


def of(classes: list[int], probabilities: list[float]) -> Answers:
    """What was said of one image."""
    return answers_from_probabilities(
        np.array([classes], np.int32), np.array([probabilities], np.float32)
    )


def test_equal_classes_come_in_class_order() -> None:
    mean = weighted_mean([of([3, 1], [0.5, 0.25]), of([1, 2], [0.5, 0.25])], [1, 1])
    assert mean.classes.tolist() == [[1, 3]]
    mean = weighted_mean([of([3, 0], [0.5, 0.5]), of([2, 1], [0.5, 0.5])], [1, 1])
    assert mean.classes.tolist() == [[0, 1]]
    assert mean.probabilities.tolist() == [[0.25, 0.25]]


def test_a_class_that_nobody_thinks_possible_may_fill_the_list() -> None:
    mean = weighted_mean([of([2, 0], [1, 0]), of([2, 1], [1, 0])], [1, 3])
    assert mean.classes.tolist() == [[2, 0]]
    assert mean.probabilities.tolist() == [[1, 0]]
    assert mean.entropy.tolist() == [0]


def test_the_best_class_of_each_part_is_enough_for_a_mean() -> None:
    mean = weighted_mean([of([4], [0.5]), of([4], [0.75]), of([9], [0.5])], [2, 1, 1])
    assert mean.classes.tolist() == [[4]]
    assert mean.probabilities.tolist() == [[0.4375]]


def test_the_mean_of_one_part_is_that_part() -> None:
    part = tiny.outputs(np.random.default_rng(0), 20)["big"]
    mean = weighted_mean([part], [0.3])
    np.testing.assert_array_equal(mean.classes, part.classes)
    np.testing.assert_array_equal(mean.probabilities, part.probabilities)
    np.testing.assert_allclose(mean.entropy, part.entropy, atol=1e-5)


def test_only_the_ratio_of_weights_counts() -> None:
    parts = list(tiny.outputs(np.random.default_rng(0), 20, 3).values())
    one, other = (weighted_mean(parts, [c, 3 * c, 4 * c]) for c in (1.0, 1e-6))
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-6)


def test_the_mean_of_no_images_is_none() -> None:
    none = [part.take(np.arange(0)) for part in tiny.outputs(np.random.default_rng(0), 3).values()]
    assert weighted_mean(none, [1, 1, 1]).classes.shape == (0, 4)


def test_where_an_image_stands_does_not_change_its_mean() -> None:
    parts = list(tiny.outputs(np.random.default_rng(0), 50).values())
    whole, rows = weighted_mean(parts, [1, 2, 3]), np.array([7, 3, 30])
    some = weighted_mean([part.take(rows) for part in parts], [1, 2, 3])
    for name in ("classes", "probabilities", "entropy"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[rows])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_mean_is_the_same_however_many_classes_are_got(k: int) -> None:
    outputs = tiny.outputs(np.random.default_rng(1), 50)
    mean = Mean((("big", 2.0),), k)
    for got in range(k, tiny.CLASSES + 1):
        found = mean.of({name: answers.top(got) for name, answers in outputs.items()})
        wanted = mean.of({name: answers.top(k) for name, answers in outputs.items()})
        assert found.classes.tolist() == wanted.classes.tolist()
        assert found.probabilities.tolist() == wanted.probabilities.tolist()
        assert found.entropy.tolist() == wanted.entropy.tolist()


def test_a_mean_of_fewer_classes_than_it_was_made_for_is_refused() -> None:
    """Another k makes other means, so other decisions than those that were measured."""
    outputs = tiny.outputs(np.random.default_rng(1), 5)
    few = {name: answers.top(2) for name, answers in outputs.items()}
    with pytest.raises(InputError, match="a mean of the 3 best classes; the answers hold 2"):
        Mean((), 3).of(few)


def test_an_answer_without_a_weight_counts_one() -> None:
    outputs = tiny.outputs(np.random.default_rng(2), 30)
    spelt = Mean((("small.block1.exit", 1.0), ("small", 1.0), ("big", 4.0)), None)
    short = Mean((("big", 4.0),), None)
    assert spelt.of(outputs).probabilities.tolist() == short.of(outputs).probabilities.tolist()


def test_a_single_answer_stays_what_it_is() -> None:
    answers = answers_from_logits(np.random.default_rng(0).normal(size=(5, 4)), None)
    assert Mean((), 2).of({"small": answers}) is answers


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((("a", 0.0),), r"weights of a mean: \[\('a', 0\.0\)\]; wanted one finite number above 0"),
        ((("a", 1.0), ("b", -2.0)), r"weights of a mean: \[\('b', -2\.0\)\]; wanted"),
        ((("a", 1.0), ("a", 2.0)), "weights of a mean: an answer is given twice; wanted one"),
    ],
)
def test_weights_that_make_no_mean_are_refused(
    weights: tuple[tuple[str, float], ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Mean(weights, None)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        Mean((("a", weight),), None)


@pytest.mark.parametrize("k", [0, -1])
def test_a_mean_of_no_classes_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"a mean of the {k} best classes; wanted at least 1"):
        Mean((), k)
