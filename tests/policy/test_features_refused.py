"""What a feature refuses, when it is made and when it is read."""

import numpy as np
import pytest

from policy.answers import Answers, answers_from_logits
from policy.errors import InputError
from policy.features import Feature, Seen, feature_values

THREE = answers_from_logits(np.log(np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], np.float32)), None)
TRAIL: dict[str, Answers] = {"a": THREE, "b": THREE, "c": THREE}


def test_a_feature_of_an_answer_not_got_yet_is_refused() -> None:
    with pytest.raises(
        InputError, match="looks at answer 'd', which is not on the trail a > b > c"
    ):
        feature_values((Feature("d", "entropy"),), Seen(TRAIL))


def test_a_comparison_with_an_answer_not_got_yet_is_refused() -> None:
    with pytest.raises(InputError, match="looks at answer 'd', which is not on the trail"):
        feature_values((Feature("a", "agreement", other="d"),), Seen(TRAIL))


@pytest.mark.parametrize(
    ("feature", "k", "wanted"),
    [
        (Feature("a", "margin"), 1, 2),
        (Feature("a", "probability", 2), 2, 3),
        (Feature("a", "tail", 2), 1, 2),
        (Feature("b", "overlap", 3, other="a"), 2, 3),
    ],
)
def test_a_feature_of_classes_not_kept_is_refused(feature: Feature, k: int, wanted: int) -> None:
    trail = {name: answers.top(k) for name, answers in TRAIL.items()}
    message = (
        f"'{feature.kind}' of '{feature.answer}' needs the {wanted} best classes; the answers hold "
        f"{k}.*topk"
    )
    with pytest.raises(InputError, match=message):
        feature_values((feature,), Seen(trail))


@pytest.mark.parametrize("kind", ["overlap", "support"])
def test_a_comparison_with_classes_not_kept_is_refused(kind: str) -> None:
    trail = TRAIL | {"a": THREE.top(1)}
    feature = Feature("b", kind, 2, other="a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"'{kind}' of .* needs the 2 best classes; .* hold 1"):
        feature_values((feature,), Seen(trail))


def test_a_class_that_was_not_recorded_is_refused() -> None:
    trail = {"a": THREE.top(2)}
    with pytest.raises(InputError, match=r"class 0 is not among the classes recorded for 'a'.*all"):
        feature_values((Feature("a", "class_probability", 0),), Seen(trail))


def test_a_mean_without_weights_is_refused() -> None:
    message = "looks at the mean of the trail to 'b', but the policy has no weights for a mean"
    with pytest.raises(InputError, match=message):
        feature_values((Feature("b", "entropy", mean=True),), Seen(TRAIL))


def test_a_score_outside_a_policy_is_refused() -> None:
    message = "looks at the score of the rule at 'a'; scores exist only inside a policy"
    with pytest.raises(InputError, match=message):
        feature_values((Feature("a", "score"),), Seen(TRAIL))


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(InputError, match="'probability' has index -1; wanted at least 0"):
        Feature("a", "probability", -1)


@pytest.mark.parametrize("kind", ["overlap", "support"])
def test_a_comparison_of_no_classes_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"'{kind}' has index 0; wanted at least 1"):
        Feature("b", kind, other="a")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["agreement", "overlap", "support"])
def test_a_comparison_with_nothing_is_refused(kind: str) -> None:
    message = f"'{kind}' has other None; wanted another answer for agreement, overlap, support"
    with pytest.raises(InputError, match=message):
        Feature("b", kind, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["entropy", "score", "of_class"])
def test_another_answer_where_nothing_is_compared_is_refused(kind: str) -> None:
    values = (1.0,) if kind == "of_class" else ()
    with pytest.raises(InputError, match=f"'{kind}' has other 'a'; wanted .* None for the rest"):
        Feature("b", kind, other="a", values=values)  # type: ignore[arg-type]


def test_values_belong_to_classes_only() -> None:
    with pytest.raises(InputError, match="'of_class' has 0 values; wanted one for every class"):
        Feature("a", "of_class")
    with pytest.raises(InputError, match=r"'entropy' has 1 values; .* none for the rest"):
        Feature("a", "entropy", values=(1.0,))


@pytest.mark.parametrize("kind", ["vote", "score"])
def test_a_mean_of_what_is_no_answer_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"'{kind}' of a mean"):
        Feature("a", kind, mean=True)  # type: ignore[arg-type]


def test_an_unknown_kind_of_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="max_probability"):
        Feature("a", "confidence")  # type: ignore[arg-type]
