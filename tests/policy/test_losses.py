from dataclasses import replace

import numpy as np
import pytest

from policy.answers import Answers
from policy.errors import InputError
from policy.losses import Metric, Objective, knows, regret, regrets, wrong

LABELS = np.array([0, 1, 2, 3], np.int32)


def answers(*classes: list[int]) -> Answers:
    """Answers whose best classes are these; how sure does not matter here."""
    found = np.array(classes, np.int32)
    return Answers(found, np.full(found.shape, 0.1, np.float32), np.zeros(len(found), np.float32))


HALF = answers([0, 9, 8, 7, 6], [9, 8, 7, 6, 1], [9, 8, 7, 6, 5], [3, 9, 8, 7, 6])
FULL = answers([0, 9, 8, 7, 6], [1, 9, 8, 7, 6], [9, 2, 8, 7, 6], [9, 8, 7, 6, 5])


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [("top1", [False, True, True, False]), ("top5", [False, False, True, False])],
)
def test_wrong_is_a_label_not_among_the_best(metric: Metric, wanted: list[bool]) -> None:
    assert wrong(HALF, LABELS, metric).tolist() == wanted


def test_the_sixth_class_does_not_make_top5_right() -> None:
    assert wrong(answers([9, 8, 7, 6, 5, 0]), LABELS[:1], "top5").tolist() == [True]


@pytest.mark.parametrize(
    ("metric", "objective", "wanted"),
    [
        ("top1", "excess", [0, 1, 0, 0]),
        ("top1", "loss", [0, 1, 0, -1]),
        ("top5", "excess", [0, 0, 1, 0]),
        ("top5", "loss", [0, 0, 1, -1]),
    ],
)
def test_regret_is_what_is_lost_against_the_full_network(
    metric: Metric, objective: Objective, wanted: list[int]
) -> None:
    assert regret(HALF, FULL, LABELS, metric, objective).tolist() == wanted


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_the_full_network_regrets_nothing(objective: Objective) -> None:
    found = regrets({"half": HALF, "full": FULL}, "full", LABELS, "top1", objective)
    assert list(found) == ["half", "full"]
    assert not found["full"].any()
    assert found["half"].tolist() == regret(HALF, FULL, LABELS, "top1", objective).tolist()


def test_fewer_than_five_classes_are_enough_if_there_are_no_others() -> None:
    every = replace(HALF.top(2), probabilities=np.full((4, 2), 0.5, np.float32))
    assert wrong(every, LABELS, "top5").tolist() == [False, True, True, False]


@pytest.mark.parametrize(("k", "top5"), [(1, False), (4, False), (5, True)])
def test_a_metric_is_known_if_its_classes_are_recorded(k: int, top5: bool) -> None:  # noqa: FBT001
    assert knows(HALF.top(k), "top1")
    assert knows(HALF.top(k), "top5") == top5


@pytest.mark.parametrize(("metric", "k", "found"), [("top5", 5, 4), ("top1", 1, 0)])
def test_too_few_classes_for_a_metric_are_refused(metric: Metric, k: int, found: int) -> None:
    message = f"{metric} needs the {k} best classes; the table holds {found}. .*larger --topk"
    with pytest.raises(InputError, match=message):
        wrong(HALF.top(found), LABELS, metric)
