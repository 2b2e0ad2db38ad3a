import numpy as np
import pytest
import tiny

from policy.answers import Answers, answers_from_logits
from policy.evidence import comparisons, confidences, evidence
from policy.features import Feature, Seen, feature_values
from policy.means import Mean

EXIT, SMALL, BIG = tiny.GRAPH.answers


def random_outputs(n: int = 10, classes: int = 9) -> dict[str, Answers]:
    """Every class of three answers."""
    rng = np.random.default_rng(0)
    return {
        name: answers_from_logits(rng.normal(size=(n, classes)), None)
        for name in (EXIT, SMALL, BIG)
    }


FEW = ["entropy", "max_probability", "log_tail", "margin"]


@pytest.mark.parametrize(
    ("k", "kinds"),
    [(1, FEW[:3]), (2, FEW), (4, FEW), (5, [*FEW, "tail", "log_tail", "probability"])],
)
@pytest.mark.parametrize("mean", [False, True])
def test_confidences_read_as_many_classes_as_there_are(
    k: int, kinds: list[str], *, mean: bool
) -> None:
    answers = random_outputs()["big"].top(k)
    found = list(confidences(BIG, answers, mean=mean))
    assert [feature.kind for feature in found] == kinds
    assert found[0] == Feature(BIG, "entropy", mean=mean)
    assert {feature.mean for feature in found} == {mean}
    assert max(feature.classes_needed or 99 for feature in found) <= k


def test_the_five_best_classes_are_read_to_the_fifth() -> None:
    *_, tail, log_tail, fifth = confidences(BIG, random_outputs()[BIG])
    assert (tail.index, log_tail.index, fifth.index) == (5, 5, 4)


def test_one_answer_is_not_compared() -> None:
    outputs = random_outputs()
    mean = Mean((), None)
    assert evidence([BIG], outputs, mean) == tuple(confidences(BIG, outputs[BIG]))


def test_the_last_answer_is_compared_with_each_before_it() -> None:
    outputs = random_outputs()
    found = evidence([EXIT, SMALL, BIG], outputs, None)
    compared = [feature for feature in found if feature.other is not None]
    assert compared == [*comparisons(BIG, EXIT, 5), *comparisons(BIG, SMALL, 5)]
    assert not any(feature.mean for feature in found)


def test_with_one_class_there_is_no_overlap() -> None:
    kinds = [feature.kind for feature in comparisons(BIG, SMALL, 1)]
    assert kinds == ["agreement", "support"]


@pytest.mark.parametrize("widths", [(1, 1, 1), (9, 9, 9), (1, 9, 9), (9, 9, 1), (3, 2, 9)])
@pytest.mark.parametrize("k", [None, 1, 2])
def test_what_tables_of_any_width_hold_is_enough(
    widths: tuple[int, int, int], k: int | None
) -> None:
    given = zip(random_outputs().items(), widths, strict=True)
    outputs = {name: answers.top(width) for (name, answers), width in given}
    narrowest = min(widths)
    mean = Mean((), narrowest if k is None else min(k, narrowest))
    for end in (1, 2, 3):
        names = [EXIT, SMALL, BIG][:end]
        features = evidence(names, outputs, mean)
        assert len(set(features)) == len(features)
        seen = Seen({name: outputs[name] for name in names}, mean)
        assert np.isfinite(feature_values(features, seen)).all()
