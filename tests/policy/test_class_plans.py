import numpy as np
import proposals
import pytest

from policy.class_plans import Node, Plan
from policy.evaluate import measure
from policy.fit_shares import SIGN, Score
from policy.graph import Stage, StageGraph
from policy.per_class import Choice, Fitted, levels_of
from policy.problem import Problem
from policy.rules import STOP, always

STAR = StageGraph(
    (
        Stage("a", 1.0, answers=True),
        Stage("b", 2.0, answers=True),
        Stage("c", 3.0, ("image", "b"), answers=True),
    ),
    "usd",
)


def planned(score: Score, nodes: tuple[Node, ...]) -> Plan:
    problem = proposals.problem(600, graph=STAR)
    levels = {
        name: levels_of(
            SIGN[score] * np.asarray(scores_of(problem, name, score), dtype=np.float64),
            answers.classes[:, 0],
            4,
        )
        for name, answers in problem.outputs.items()
    }
    return Plan(problem, score, levels, np.arange(600) % 2, nodes)


def scores_of(problem: Problem, name: str, score: Score) -> np.ndarray:
    answers = problem.outputs[name]
    return answers.entropy if score == "entropy" else answers.probabilities[:, 0]


def chosen(plan: Plan, answer: str, below: list[int], way: list[int]) -> Fitted:
    choice = Choice(np.array(below), np.array(way))
    return Fitted(choice, choice.taken(plan.levels[answer]))


SINGLE = (Node(("a",), ("b", "c")),)
CHAIN = (Node(("a",), ("b",)), Node(("a", "b"), ("c",)))


@pytest.mark.parametrize("score", ["max_probability", "entropy"])
@pytest.mark.parametrize(
    "nodes, below, ways",  # noqa: PT006
    [
        (SINGLE, [[20, 0, 65, 40]], [[0, 1, 0, 1]]),
        (SINGLE, [[20, 0, 65, 40]], [[1, 0, 1, 1]]),
        (SINGLE, [[0, 0, 0, 0]], [[0, 0, 0, 0]]),
        (CHAIN, [[30, 65, 1, 10], [5, 60, 0, 65]], [[0] * 4, [0] * 4]),
        (CHAIN, [[65] * 4, [20] * 4], [[0] * 4, [0] * 4]),
        (CHAIN, [[30] * 4, [0] * 4], [[0] * 4, [0] * 4]),
    ],
)
def test_a_policy_does_what_the_choices_say(
    score: Score, nodes: tuple[Node, ...], below: list[list[int]], ways: list[list[int]]
) -> None:
    plan = planned(score, nodes)
    choices = {
        node.answer: chosen(plan, node.answer, levels, way)
        for node, levels, way in zip(nodes, below, ways, strict=True)
    }
    spent, lost = plan.realised(choices)
    (point,) = measure([plan.policy(choices)], plan.problem)
    assert point.cost == pytest.approx(1 + spent["a"].mean())
    assert point.regret == pytest.approx(lost["a"].mean())


def test_only_ways_that_some_class_takes_are_actions() -> None:
    plan = planned("entropy", SINGLE)
    policy = plan.policy({"a": chosen(plan, "a", [9, 9, 0, 0], [1, 1, 0, 0])})
    assert policy.rules[0].actions == (STOP, "c")
    assert len(policy.rules[0].features) == 2
    policy = plan.policy({"a": chosen(plan, "a", [9, 9, 9, 0], [1, 1, 0, 0])})
    assert policy.rules[0].actions == (STOP, "b", "c")


def test_a_plan_where_nobody_goes_on_is_an_answer_alone() -> None:
    plan = planned("entropy", SINGLE)
    assert plan.policy({}) == always(STAR, "a")
    assert plan.policy({"a": chosen(plan, "a", [0] * 4, [1] * 4)}) == always(STAR, "a")


def test_a_shared_stage_is_paid_once_on_the_way() -> None:
    plan = planned("entropy", CHAIN)
    all_on = [len(plan.levels["a"].cuts) + 1] * 4
    spent, _ = plan.realised({name: chosen(plan, name, all_on, [0] * 4) for name in "ab"})
    assert set(spent["a"]) == {2.0 + 3.0}


def test_a_node_is_fitted_on_those_who_reach_it() -> None:
    plan = planned("entropy", CHAIN)
    first, second = plan.nodes
    nobody = {"a": chosen(plan, "a", [0] * 4, [0] * 4)}
    assert plan.fit_node({}, second, 1e4).choice.below.any()
    assert not plan.fit_node(nobody, second, 1e4).choice.below.any()
    assert plan.fit_node({}, first, 1e4).choice.below.any()
