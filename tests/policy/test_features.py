from dataclasses import replace

import numpy as np
import pytest
import tiny
from by_hand import feature_of_image

from policy.answers import Answers, answers_from_logits
from policy.errors import InputError
from policy.features import Feature, Seen, feature_values
from policy.means import Mean
from policy.rules import always


def answers(*rows: list[float]) -> Answers:
    """Answers with these probabilities of class 0, 1, ..."""
    return answers_from_logits(np.log(np.array(rows, np.float32)), None)


TRAIL = {
    "a": answers([0.1, 0.7, 0.2], [0.6, 0.3, 0.1]),
    "b": answers([0.2, 0.5, 0.3], [0.1, 0.8, 0.1]),
    "c": answers([0.9, 0.05, 0.05], [0.1, 0.2, 0.7]),
}
SEEN = Seen(TRAIL)
MEANT = Seen(TRAIL, Mean((("b", 3.0),), k=3))


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
        (Feature("a", "tail", 1), [0.3, 0.4]),
        (Feature("a", "tail", 2), [0.1, 0.1]),
        (Feature("a", "tail", 3), [0, 0]),
        (Feature("c", "log_tail", 1), [np.log(0.1), np.log(0.3)]),
        (Feature("c", "log_tail", 3), [np.log(1e-4)] * 2),
        (Feature("c", "of_class", values=(5, 6, 7)), [5, 7]),
        (Feature("c", "of_class", values=(5, 6)), [5, 6]),
        (Feature("b", "agreement", other="a"), [1, 0]),
        (Feature("c", "agreement", other="b"), [0, 0]),
        (Feature("c", "overlap", 2, other="b"), [1 / 2, 1 / 2]),
        (Feature("c", "overlap", 1, other="a"), [0, 0]),
        (Feature("b", "support", 1, other="a"), [0.7, 0]),
        (Feature("b", "support", 2, other="a"), [0.7, 0.3]),
    ],
)
def test_a_feature_is_what_it_says(feature: Feature, wanted: list[float]) -> None:
    values = feature_values((feature,), SEEN)
    np.testing.assert_allclose(values, np.array(wanted)[:, None], atol=1e-4)
    assert values.dtype == np.float64


@pytest.mark.parametrize(
    ("feature", "wanted"),
    [
        (Feature("a", "max_probability", mean=True), [0.7, 0.6]),
        (Feature("b", "max_probability", mean=True), [0.55, 0.675]),
        (Feature("b", "margin", mean=True), [0.275, 0.45]),
        (Feature("b", "tail", 2, mean=True), [0.175, 0.1]),
        (Feature("c", "max_probability", mean=True), [2.25 / 5, 2.9 / 5]),
        (Feature("c", "of_class", mean=True, values=(5, 6, 7)), [6, 6]),
        (Feature("b", "agreement", other="a", mean=True), [1, 0]),
        (Feature("c", "support", 1, other="b", mean=True), [0.5, 0.8]),
    ],
)
def test_a_feature_of_the_mean_reads_the_trail_up_to_its_answer(
    feature: Feature, wanted: list[float]
) -> None:
    values = feature_values((feature,), MEANT)[:, 0]
    np.testing.assert_allclose(values, wanted, atol=1e-6)


def test_the_entropy_of_a_mean_is_that_of_its_probabilities() -> None:
    (value, _) = feature_values((Feature("b", "entropy", mean=True),), MEANT)[:, 0]
    mean = np.array([0.175, 0.55, 0.275])
    assert value == pytest.approx(-(mean * np.log(mean)).sum(), abs=1e-6)


def test_a_score_is_what_the_policy_gives_clamped() -> None:
    scored = replace(SEEN, score_of=lambda answer: np.array([-0.5, 0.25]) * (1 + (answer == "b")))
    pair = (Feature("a", "score"), Feature("b", "score"))
    assert feature_values(pair, scored).tolist() == [[0, 0], [0.25, 0.5]]
    high = replace(SEEN, score_of=lambda _: np.array([1.5, 1.0]))
    assert feature_values(pair[:1], high).tolist() == [[1], [1]]


@pytest.mark.parametrize("seed", range(5))
def test_features_are_those_found_by_hand_for_each_image(seed: int) -> None:
    trail = tiny.outputs(np.random.default_rng(seed), 20)
    policy, kinds = tiny.EVERYTHING, set()
    for rule in policy.rules:
        got = {name: trail[name] for name in list(trail)[: list(trail).index(rule.answer) + 1]}
        values = feature_values(rule.features, policy.seen(got))
        for column, feature in enumerate(rule.features):
            wanted = [feature_of_image(policy, feature, list(got), trail, i) for i in range(20)]
            np.testing.assert_allclose(values[:, column], wanted, atol=1e-6)
            kinds.add(feature.kind)
    assert len(kinds) == 13  # every kind there is


def test_features_come_in_the_order_asked_for() -> None:
    pair = (Feature("b", "margin"), Feature("a", "max_probability"))
    values = feature_values(pair, SEEN)
    np.testing.assert_array_equal(values[:, ::-1], feature_values(pair[::-1], SEEN))


def test_no_features_give_no_columns_but_every_row() -> None:
    assert feature_values((), SEEN).shape == (2, 0)


def test_features_of_no_images_are_no_rows() -> None:
    none = Seen({name: given.take(np.arange(0)) for name, given in TRAIL.items()}, MEANT.mean)
    of_class = Feature("a", "of_class", values=(1.0,))
    compared = (Feature("b", "overlap", 2, other="a"), Feature("b", "support", 2, other="a"))
    asked = (of_class, Feature("c", "vote"), Feature("c", "margin", mean=True), *compared)
    assert feature_values(asked, none).shape == (0, 5)


@pytest.mark.parametrize("seed", range(10))
def test_vote_is_the_share_of_the_commonest_class_so_far(seed: int) -> None:
    trail = tiny.outputs(np.random.default_rng(seed), 30)
    best = np.stack([answer.classes[:, 0] for answer in trail.values()], axis=1)
    for step, name in enumerate(trail):
        wanted = [np.bincount(row[: step + 1]).max() / (step + 1) for row in best]
        values = feature_values((Feature(name, "vote"),), Seen(trail))[:, 0]
        np.testing.assert_allclose(values, wanted)


def test_a_trail_is_cut_after_an_answer_in_the_order_it_was_got() -> None:
    turned = Seen({name: TRAIL[name] for name in ("c", "a", "b")})
    assert list(turned.upto("a")) == ["c", "a"]
    assert feature_values((Feature("b", "vote"),), turned)[0, 0] == 2 / 3


@pytest.mark.parametrize("kind", ["margin", "tail", "overlap", "support", "probability"])
def test_the_classes_needed_are_exactly_enough(kind: str) -> None:
    other = "a" if kind in ("overlap", "support") else None
    feature = Feature("b", kind, 2, other=other)  # type: ignore[arg-type]
    k = feature.classes_needed
    assert k == (3 if kind == "probability" else 2)
    few = Seen({name: TRAIL[name].top(k) for name in ("a", "b")})
    np.testing.assert_array_equal(feature_values((feature,), few), feature_values((feature,), SEEN))
    fewer = Seen({name: TRAIL[name].top(k - 1) for name in ("a", "b")})
    with pytest.raises(InputError, match=f"'{kind}' of 'b' needs the {k} best classes"):
        feature_values((feature,), fewer)


def test_a_feature_of_the_best_class_needs_one_class_and_per_class_features_need_all() -> None:
    one = [Feature("b", "entropy"), Feature("b", "agreement", other="a"), Feature("b", "vote")]
    assert [feature.classes_needed for feature in one] == [1, 1, 1]
    assert Feature("b", "class_probability", 2).classes_needed is None
    assert Feature("b", "agreement", other="a").looks_at == ("b", "a")


def test_a_policy_knows_its_mean_and_its_scores() -> None:
    assert tiny.EVERYTHING.seen(TRAIL).mean is tiny.EVERYTHING.mean
    assert always(tiny.GRAPH, "big").seen(TRAIL).mean is None
