import numpy as np
import pytest
from numpy.typing import NDArray

from policy.answers import Answers, answers_from_logits, answers_from_probabilities, concatenate

Logits = NDArray[np.floating]
NAN, INF = float("nan"), float("inf")


def softmax_64(logits: Logits) -> NDArray[np.float64]:
    """Softmax in the widest float there is."""
    wide = logits.astype(np.longdouble)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float64)


def entropy_64(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """-sum p log p in float64, 0 log 0 = 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return -(probabilities * logs).sum(axis=1)


def random_logits(seed: int, n: int = 50, classes: int = 40) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=10.0 ** rng.integers(-3, 3), size=(n, classes))
    return logits.astype(np.float32)


def assert_equal(a: Answers, b: Answers) -> None:
    np.testing.assert_array_equal(a.classes, b.classes)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    np.testing.assert_array_equal(a.entropy, b.entropy)


@pytest.mark.parametrize("seed", range(20))
def test_softmax_and_entropy_agree_with_float64(seed: int) -> None:
    logits = random_logits(seed)
    answers = answers_from_logits(logits, None)
    wanted = softmax_64(logits)
    found = np.zeros_like(wanted)
    np.put_along_axis(found, answers.classes, answers.probabilities, axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(answers.entropy, entropy_64(wanted), rtol=2e-5, atol=2e-6)
    assert (answers.entropy >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_classes_come_by_falling_probability_each_once(seed: int) -> None:
    answers = answers_from_logits(random_logits(seed), None)
    assert (np.diff(answers.probabilities, axis=1) <= 0).all()
    np.testing.assert_array_equal(np.sort(answers.classes, axis=1), np.tile(np.arange(40), (50, 1)))


def test_types_are_those_of_the_table() -> None:
    answers = answers_from_logits(random_logits(0).astype(np.float64), 3)
    dtypes = [array.dtype for array in (answers.classes, answers.probabilities, answers.entropy)]
    assert dtypes == [np.int32, np.float32, np.float32]
    assert answers.classes.shape == answers.probabilities.shape == (50, 3)
    assert len(answers) == 50


def test_equal_logits_come_in_class_order() -> None:
    logits = np.array([[1, 2, 2, 1, 2], [0, 0, 0, 0, 0], [-0.0, 0.0, -0.0, 0.0, 1]], np.float32)
    answers = answers_from_logits(logits, None)
    assert answers.classes.tolist() == [[1, 2, 4, 0, 3], [0, 1, 2, 3, 4], [4, 0, 1, 2, 3]]
    assert answers.entropy[1] == pytest.approx(np.log(5))


@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_k_best_are_the_first_of_all_with_the_entropy_of_all(k: int) -> None:
    logits = random_logits(3)
    assert_equal(answers_from_logits(logits, k), answers_from_logits(logits, None).top(k))


def test_asking_for_more_classes_than_there_are_gives_all() -> None:
    logits = random_logits(4, classes=3)
    assert_equal(answers_from_logits(logits, 9), answers_from_logits(logits, None))


def test_minus_infinity_is_a_probability_of_zero() -> None:
    answers = answers_from_logits(np.array([[-INF, 1.0, -INF, 1.0]], np.float32), None)
    assert answers.classes.tolist() == [[1, 3, 0, 2]]
    assert answers.probabilities.tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert answers.entropy[0] == pytest.approx(np.log(2))
    assert answers.finite.all()


def test_one_possible_class_has_entropy_zero() -> None:
    answers = answers_from_logits(np.array([[-INF, 5.0], [1000.0, -1000.0]], np.float32), None)
    assert answers.entropy.tolist() == [0.0, 0.0]
    assert answers.probabilities.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("row", [[NAN, 1, 2], [1, INF, 2], [-INF, -INF, -INF], [INF, NAN, -INF]])
def test_a_row_that_is_not_finite_has_entropy_nan_and_harms_no_other(row: list[float]) -> None:
    good = random_logits(5, n=4, classes=3)
    answers = answers_from_logits(np.insert(good, 2, row, axis=0), None)
    assert answers.finite.tolist() == [True, True, False, True, True]
    assert np.isnan(answers.entropy[2])
    assert_equal(answers.take(np.array([0, 1, 3, 4])), answers_from_logits(good, None))


@pytest.mark.parametrize("row", [[3e38, -3e38], [1e39, 0.0], [-1e39, 0.0]])
def test_logits_at_the_end_of_float32_give_no_warning(row: list[float]) -> None:
    largest = float(np.finfo(np.float32).max)
    fits = max(row) <= largest
    answers = answers_from_logits(np.array([row]), None)
    assert answers.finite.tolist() == [fits]
    if fits:
        assert answers.classes[0, 0] == int(np.argmax(row))
        assert answers.probabilities.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("seed", range(5))
def test_an_image_gets_the_same_answer_alone_and_in_any_batch(seed: int) -> None:
    logits = random_logits(seed, classes=1000)
    together = answers_from_logits(logits, 5)
    for row in (0, 17, 49):
        assert_equal(answers_from_logits(logits[row : row + 1], 5), together.take(np.array([row])))


def test_an_answer_does_not_depend_on_the_order_of_the_logits_in_memory() -> None:
    logits = random_logits(6, classes=1000)
    assert_equal(
        answers_from_logits(np.asfortranarray(logits), None), answers_from_logits(logits, None)
    )


def test_no_image_gives_no_answer() -> None:
    answers = answers_from_logits(np.zeros((0, 3), np.float32), 2)
    assert len(answers) == 0
    assert answers.classes.shape == (0, 2)


def test_half_precision_logits_are_answered_in_float32() -> None:
    logits = random_logits(7).clip(-100, 100).astype(np.float16)
    assert_equal(
        answers_from_logits(logits, None), answers_from_logits(logits.astype(np.float32), None)
    )


def test_taking_and_concatenating_rows_undo_each_other() -> None:
    answers = answers_from_logits(random_logits(8), 4)
    order = np.random.default_rng(0).permutation(50)
    back = concatenate([answers.take(order[:20]), answers.take(order[20:])]).take(np.argsort(order))
    assert_equal(back, answers)


def test_recorded_answers_are_sorted_with_their_classes() -> None:
    classes = np.array([[7, 3, 5], [1, 2, 3]], np.int32)
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)
    answers = answers_from_probabilities(classes, probabilities)
    assert answers.classes.tolist() == [[3, 5, 7], [1, 3, 2]]
    np.testing.assert_allclose(answers.probabilities, [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])


@pytest.mark.parametrize("seed", range(5))
def test_entropy_of_recorded_answers_is_exact_for_all_classes_and_a_lower_bound_for_some(
    seed: int,
) -> None:
    whole = answers_from_logits(random_logits(seed), None)
    entropy = [
        answers_from_probabilities(whole.classes[:, :k], whole.probabilities[:, :k]).entropy
        for k in (1, 5, 40)
    ]
    np.testing.assert_allclose(entropy[2], whole.entropy, rtol=1e-4, atol=1e-4)
    assert (entropy[0] <= entropy[1] + 1e-4).all()
    assert (entropy[1] <= entropy[2] + 1e-4).all()


def test_what_the_best_leave_over_counts_as_one_class() -> None:
    answers = answers_from_probabilities(np.array([[4]], np.int32), np.array([[0.5]], np.float32))
    assert answers.entropy[0] == pytest.approx(np.log(2))
    sure = answers_from_probabilities(np.array([[4]], np.int32), np.array([[1.0]], np.float32))
    assert sure.entropy[0] == 0


@pytest.mark.parametrize("k", [1, 2, 5, 39, 40, 100])
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_the_best_classes_are_those_of_a_stable_sort_even_where_many_are_equal(
    levels: int, k: int
) -> None:
    rng = np.random.default_rng(levels)
    logits = rng.integers(0, levels, (200, 40)).astype(np.float32)
    logits[0], logits[1, 3:] = -INF, -INF
    logits[0, 7] = 0
    wanted = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(answers_from_logits(logits, k).classes, wanted)
