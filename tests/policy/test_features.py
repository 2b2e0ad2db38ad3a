import numpy as np
import pytest
import tiny

from policy.answers import Answers, answers_from_logits
from policy.errors import InputError
from policy.features import Feature, feature_values


def answers(*rows: list[float]) -> Answers:
    """Answers with these probabilities of class 0, 1, ..."""
    return answers_from_logits(np.log(np.array(rows, np.float32)), None)


TRAIL = {
    "a": answers([0.1, 0.7, 0.2], [0.6, 0.3, 0.1]),
    "b": answers([0.2, 0.5, 0.3], [0.1, 0.8, 0.1]),
    "c": answers([0.9, 0.05, 0.05], [0.1, 0.2, 0.7]),
}


@pytest.mark.parametrize(
    ("feature", "wanted"),
    [
        (Feature("a", "max_probability"), [0.7, 0.6]),
        (Feature("a", "margin"), [0.5, 0.3]),
        (Feature("b", "entropy"), [1.0297, 0.6390]),
        (Feature("c", "probability", 1), [0.05, 0.2]),
        (Feature("c", "probability"), [0.9, 0.7]),
        (Feature("a", "class_probability", 2), [0.2, 0.1]),
        (Feature("c", "class_probability", 0), [0.9, 0.1]),
        (Feature("a", "vote"), [1, 1]),
        (Feature("b", "vote"), [1, 1 / 2]),
        (Feature("c", "vote"), [2 / 3, 1 / 3]),
    ],
)
def test_a_feature_is_what_it_says(feature: Feature, wanted: list[float]) -> None:
    values = feature_values((feature,), TRAIL)
    np.testing.assert_allclose(values, np.array(wanted)[:, None], atol=1e-4)
    assert values.dtype == np.float64


def test_features_come_in_the_order_asked_for() -> None:
    pair = (Feature("b", "margin"), Feature("a", "max_probability"))
    values = feature_values(pair, TRAIL)
    np.testing.assert_array_equal(values[:, ::-1], feature_values(pair[::-1], TRAIL))


def test_no_features_give_no_columns_but_every_row() -> None:
    assert feature_values((), TRAIL).shape == (2, 0)


@pytest.mark.parametrize("seed", range(10))
def test_vote_is_the_share_of_the_commonest_class_so_far(seed: int) -> None:
    trail = tiny.outputs(np.random.default_rng(seed), 30)
    best = np.stack([answer.classes[:, 0] for answer in trail.values()], axis=1)
    for step, name in enumerate(trail):
        wanted = [np.bincount(row[: step + 1]).max() / (step + 1) for row in best]
        np.testing.assert_allclose(feature_values((Feature(name, "vote"),), trail)[:, 0], wanted)


def test_a_feature_of_an_answer_not_got_yet_is_refused() -> None:
    with pytest.raises(
        InputError, match="looks at answer 'd', which is not on the trail a > b > c"
    ):
        feature_values((Feature("d", "entropy"),), TRAIL)


@pytest.mark.parametrize(
    ("feature", "k", "wanted"),
    [(Feature("a", "margin"), 1, 2), (Feature("a", "probability", 2), 2, 3)],
)
def test_a_feature_of_classes_not_kept_is_refused(feature: Feature, k: int, wanted: int) -> None:
    trail = {"a": TRAIL["a"].top(k)}
    message = f"'{feature.kind}' of 'a' needs the {wanted} best classes; the answers hold {k}.*topk"
    with pytest.raises(InputError, match=message):
        feature_values((feature,), trail)


def test_a_class_that_was_not_recorded_is_refused() -> None:
    with pytest.raises(InputError, match=r"class 0 is not among the classes recorded for 'a'.*all"):
        feature_values((Feature("a", "class_probability", 0),), {"a": TRAIL["a"].top(2)})


def test_a_negative_index_is_refused() -> None:
    with pytest.raises((InputError, ValueError), match="index"):
        Feature("a", "probability", -1)


def test_an_unknown_kind_of_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="max_probability"):
        Feature("a", "confidence")  # type: ignore[arg-type]
