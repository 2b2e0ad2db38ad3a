from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy.answers import Answers
from policy.certify import certify
from policy.errors import InputError
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.mixture import Mixture
from policy.problem import Problem
from policy.report_content import LOSSES, Content, Curve, Pattern, Provenance, Single
from policy.report_measure import SINGLE, Subject, cheapest, content, interval
from policy.rules import STOP, Policy, Rule, always

GRAPH = StageGraph((Stage("a", 1.0, answers=True), Stage("b", 4.0, answers=True)), "ms")
NAMES = ("cat", "dog", "newt")
PROVENANCE = Provenance("digest", "dag", 3, {"fit": 7}, {"numpy": "2"})

# Ten images of class 0, of which `a` and `b` get these right; `a` is sure of the first six.
A_RIGHT = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)
B_RIGHT = np.array([1, 1, 1, 1, 1, 0, 0, 1, 1, 0], dtype=bool)
A_SURE = np.array([0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.4, 0.4, 0.4, 0.4], dtype=np.float32)


def answers(right: np.ndarray, sure: np.ndarray) -> Answers:
    classes = np.where(right, 0, 1).astype(np.int32)[:, None]
    return Answers(classes, sure[:, None], (1 - sure).astype(np.float32))


def problem(**changes: Any) -> Problem:
    outputs = {"a": answers(A_RIGHT, A_SURE), "b": answers(B_RIGHT, A_SURE)}
    keys = [f"s/{number}" for number in range(10)]
    return replace(Problem(GRAPH, keys, np.zeros(10, np.int32), outputs), **changes)


def cascade(cut: float) -> Policy:
    """Stops at `a` where its best probability is at least `cut`."""
    sure = Feature("a", "max_probability")
    return Policy(GRAPH, "a", (Rule("a", (STOP, "b"), ((1.0,), (0.0,)), (-cut, 0.0), (sure,)),))


CHOSEN = cascade(0.5)


def subject(**changes: Any) -> Subject:
    policies = {"dag": [always(GRAPH, "b"), CHOSEN, cascade(0.3)], "myopic": [cascade(0.75)]}
    given = Subject(CHOSEN, "dag", "loss at most 0.1", None, policies, ("myopic",))
    return replace(given, **changes)


def measured(test: Problem | None = None, **changes: Any) -> Content:
    return content(subject(**changes), problem() if test is None else test, NAMES, PROVENANCE)


def test_the_summary_is_what_can_be_counted_by_hand() -> None:
    found = measured().summary
    # six images stop at `a` (four right), four go on and pay 5 (two right)
    assert (found.n, found.unit, found.full, found.full_cost) == (10, "ms", "b", 4.0)
    assert found.cost == pytest.approx((6 * 1 + 4 * 5) / 10)
    assert found.speedup == pytest.approx(4 / 2.6)
    assert (found.error, found.full_error) == (pytest.approx(0.4), pytest.approx(0.3))
    assert found.lost == pytest.approx(0.1)  # the fifth image alone


def test_single_networks_come_by_rising_cost() -> None:
    assert measured().singles == (
        Single("a", 1.0, pytest.approx(0.5)),
        Single("b", 4.0, pytest.approx(0.3)),
    )


def test_curves_are_measured_and_ordered_methods_baselines_bounds() -> None:
    found = measured(known={"uniform": [(4, 0.3), (1, 0.5)]}, oracles={"oracle": [(2, 0.1)]}).curves
    assert [(curve.name, curve.kind) for curve in found] == [
        ("dag", "method"),
        ("myopic", "baseline"),
        ("uniform", "baseline"),
        ("oracle", "bound"),
    ]
    assert np.allclose(found[0].points, [(1.0, 0.5), (2.6, 0.4), (4.0, 0.3)])
    assert found[2].points == ((1.0, 0.5), (4.0, 0.3))


def test_a_frontier_leaves_out_what_a_cheaper_policy_equals() -> None:
    points = ((1.0, 0.5), (2.0, 0.6), (3.0, 0.5), (4.0, 0.2))
    assert Curve("x", "method", points).frontier == ((1.0, 0.5), (4.0, 0.2))


def test_between_two_policies_cost_and_error_lie_on_a_line() -> None:
    full = Single("b", 4.0, 0.3)
    points = [(1.0, 0.5), (3.0, 0.3)]
    assert cheapest(points, full, 0.0, mixed=True) == pytest.approx(3.0)
    assert cheapest(points, full, 0.05, mixed=True) == pytest.approx(2.5)
    assert cheapest(points, full, 0.05, mixed=False) == pytest.approx(3.0)
    assert cheapest(points, full, 0.2, mixed=True) == pytest.approx(1.0)


def test_the_full_network_is_always_allowed() -> None:
    full = Single("b", 4.0, 0.3)
    assert cheapest([(1.0, 0.5)], full, 0.0, mixed=True) == 4.0
    assert cheapest([(9.0, 0.1)], full, 0.0, mixed=True) == 4.0
    assert cheapest([], full, 0.0, mixed=True) == 4.0


def test_speedups_compare_every_method_with_the_best_single_network() -> None:
    rows = {row.name: row.at for row in measured().speedups}
    assert list(rows) == ["dag", SINGLE, "myopic"]
    assert rows[SINGLE] == pytest.approx([1.0] * len(LOSSES))
    # a loss of 0.05 lies halfway between the policies at 2.6 and at 4
    assert rows["dag"] == pytest.approx([4 / (4 - 1.4 * x / 0.1) for x in LOSSES])


def test_what_costs_nothing_has_no_speedup() -> None:
    free = StageGraph((Stage("a", 0.0, answers=True), Stage("b", 0.0, answers=True)), "ms")
    chosen = always(free, "a")
    found = content(
        subject(chosen=chosen, policies={"dag": [chosen]}),
        problem(graph=free),
        NAMES,
        PROVENANCE,
    )
    assert found.summary.speedup is None
    assert {speedup for row in found.speedups for speedup in row.at} == {None}


def test_usage_is_shown_at_three_budgets_and_for_the_chosen_policy() -> None:
    found = measured().usage
    # between 1 and 4 lie 1.75, 2.5 and 3.25, nearest to the policies at 1, 2.6 and 2.6 or 4
    assert [row.name for row in found] == ["tight", "middle", "chosen"]
    assert [row.cost for row in found] == pytest.approx([1.0, 2.6, 2.6])
    used = found[-1].usage
    assert (used["a"].samples, used["a"].exits) == (pytest.approx(1.0), pytest.approx(0.6))
    assert used["b"].samples == pytest.approx(0.4)
    assert used["b"].cost == pytest.approx(1.6 / 2.6)


def test_a_method_without_policies_has_only_the_chosen_one() -> None:
    assert [row.name for row in measured(policies={}).usage] == ["chosen"]


def test_budget_rows_say_what_was_asked_and_what_came_of_it() -> None:
    mixture = Mixture(always(GRAPH, "a"), always(GRAPH, "b"), 0.5)
    found = measured(budgeted={"eenet": [(3.0, CHOSEN), (2.5, mixture)]}).budgets
    assert [(row.method, row.asked) for row in found] == [("eenet", 2.5), ("eenet", 3.0)]
    assert found[1].cost == pytest.approx(2.6)
    assert found[1].exits == {"a": pytest.approx(0.6), "b": pytest.approx(0.4)}


def test_overlap_counts_patterns_of_right_and_wrong() -> None:
    found = measured().overlap
    assert (found.all_right, found.all_wrong) == (pytest.approx(0.4), pytest.approx(0.2))
    assert set(found.patterns) == {
        Pattern((True, True), 0.4),
        Pattern((False, True), 0.3),
        Pattern((False, False), 0.2),
        Pattern((True, False), 0.1),
    }
    assert found.patterns[0].right == (True, True)
    assert found.other == 0
    first = found.rows[0]
    assert (first.wrong, first.later_right) == (pytest.approx(0.5), pytest.approx(0.3))
    assert first.beats_full == pytest.approx(0.1)
    assert found.rows[1].later_right == 0


def test_no_more_than_twelve_patterns_are_shown() -> None:
    rng = np.random.default_rng(0)
    names = [f"n{number}" for number in range(5)]
    graph = StageGraph(tuple(Stage(n, 1.0 + i, answers=True) for i, n in enumerate(names)), "ms")
    sure = np.full(200, 0.5, np.float32)
    outputs = {name: answers(rng.random(200) < 0.5, sure) for name in names}
    test = Problem(graph, [str(i) for i in range(200)], np.zeros(200, np.int32), outputs)
    chosen = always(graph, "n0")
    found = content(subject(chosen=chosen, policies={}), test, NAMES, PROVENANCE).overlap
    assert len(found.patterns) == 12
    assert sum(pattern.share for pattern in found.patterns) + found.other == pytest.approx(1)


def test_mistakes_are_those_that_the_full_network_does_not_make() -> None:
    found = measured().mistakes
    assert found.lost == 1
    (example,) = found.examples
    assert (example.key, example.label, example.given) == ("s/4", "cat", "dog")
    assert (example.trail, example.confidence) == (("a",), pytest.approx(0.8))
    (row,) = found.classes
    assert (row.name, row.n, row.lost) == ("cat", 10, 1)
    assert (row.error, row.full_error) == (pytest.approx(0.4), pytest.approx(0.3))


def test_trails_come_commonest_first_with_their_own_errors() -> None:
    stopped, went_on = measured().mistakes.trails
    assert (stopped.trail, stopped.n, stopped.cost) == (("a",), 6, 1.0)
    assert (stopped.error, stopped.full_error) == (pytest.approx(2 / 6), pytest.approx(1 / 6))
    assert stopped.excess == pytest.approx(1 / 6)
    assert (went_on.trail, went_on.n, went_on.cost) == (("a", "b"), 4, 5.0)
    assert went_on.excess == 0


def test_equal_trails_of_a_mixture_are_one_row() -> None:
    chosen = Mixture(cascade(0.5), cascade(0.75), 0.5)
    trails = measured(chosen=chosen).mistakes.trails
    assert sorted(row.trail for row in trails) == [("a",), ("a", "b")]
    assert sum(row.n for row in trails) == 10


def test_a_class_without_a_name_is_its_number() -> None:
    found = content(subject(), problem(), (), PROVENANCE).mistakes
    assert (found.examples[0].label, found.examples[0].given) == ("0", "1")


def test_an_interval_holds_the_mean_and_narrows_with_more_images() -> None:
    for objective in ("excess", "loss"):
        lost = np.repeat([0.0, 1.0], [90, 10])
        low, high = interval(lost, objective)
        wide = high - low
        assert -0.1 < low < 0.1 < high < 0.3
        low, high = interval(np.tile(lost, 20), objective)
        assert low < 0.1 < high
        assert high - low < wide / 2


def test_the_loss_may_be_a_gain() -> None:
    low, high = interval(np.repeat([0.0, -1.0], [900, 100]), "loss")
    assert low < -0.1 < high < 0


def test_a_certificate_is_carried_along() -> None:
    _, certificate = certify([CHOSEN], problem(), 0.2, 0.95)
    found = measured(certificate=certificate)
    assert found.certificate is certificate
    assert found.asked == "loss at most 0.1"


def test_no_image_to_test_on_is_refused() -> None:
    with pytest.raises(InputError, match=r"no image is left to test the policy on.*larger share"):
        measured(problem().take(np.arange(0)))


def test_top5_without_five_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"top5 needs the 5 best.*or fit for --metric top1"):
        measured(problem(metric="top5"))
