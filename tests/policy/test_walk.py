import numpy as np
import pytest
import tiny

from policy.cost_sensitive import Linear
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.losses import regret
from policy.means import Mean
from policy.problem import Problem
from policy.rules import STOP, Rule, always
from policy.walk import Node, Walk, policy_time, rule_at

EXIT, SMALL, BIG = tiny.GRAPH.answers
DIAMOND = StageGraph(
    tuple(Stage(name, float(cost), answers=True) for cost, name in enumerate("abcd")), "usd"
)


def diamond(n: int = 30) -> Problem:
    """Four answers, each of which may follow every cheaper one."""
    small = list(tiny.outputs(np.random.default_rng(0), n).values())
    outputs = dict(zip("abcd", [*small, small[0]], strict=True))
    return Problem(DIAMOND, [f"k{i}" for i in range(n)], tiny.labels(n), outputs)


def node_at(walk: Walk, answer: str) -> Node:
    (found,) = [node for node in walk.nodes if node.answer == answer]
    return found


def test_nodes_come_deepest_first_with_every_trail_to_them() -> None:
    walk = Walk(diamond(), ("a", "b", "c", "d"))
    assert [node.answer for node in walk.nodes] == ["d", "c", "b", "a"]
    assert set(node_at(walk, "c").trails) == {("a", "c"), ("a", "b", "c")}
    assert len(node_at(walk, "d").trails) == 4
    assert set(node_at(walk, "b").followers) == {"c", "d"}


def test_only_the_answers_chosen_between_are_walked() -> None:
    walk = Walk(diamond(), ("b", "d"))
    assert [node.answer for node in walk.nodes] == ["d", "b"]
    assert node_at(walk, "b").followers == ("d",)
    assert set(walk.lost) == {("b",), ("b", "d")}


def test_a_rule_looks_only_at_answers_on_every_trail_to_it() -> None:
    walk = Walk(diamond(), ("a", "b", "c", "d"), Mean((), 4))
    for answer, seen in {"a": {"a"}, "b": {"a", "b"}, "c": {"a", "c"}}.items():
        *_, everything = node_at(walk, answer).families
        looked = {name for feature in everything.features for name in feature.looks_at}
        assert looked == seen


def test_a_rule_may_do_with_the_confidences_of_its_own_answer() -> None:
    own, everything = node_at(Walk(diamond(), ("a", "b", "c")), "b").families
    assert {feature.answer for feature in own.features} == {"b"}
    assert set(own.features) < set(everything.features)


def test_the_first_answer_has_one_family_and_the_last_needs_none() -> None:
    walk = Walk(diamond(), ("a", "b"))
    assert len(node_at(walk, "a").families) == 1
    (family,) = node_at(walk, "b").families
    assert family.features == ()
    assert family.given.values.shape == (30, 0)


def test_values_of_all_trails_lie_one_after_the_other() -> None:
    walk = Walk(diamond(), ("a", "b", "c", "d"), Mean((("b", 5.0),), 4))
    node = node_at(walk, "c")
    *_, family = node.families
    assert family.given.values.shape == (60, len(family.features))
    column = family.features.index(Feature("c", "entropy"))
    first, second = np.split(family.given.values[:, column], 2)
    np.testing.assert_array_equal(first, second)
    column = family.features.index(Feature("c", "entropy", mean=True))
    first, second = np.split(family.given.values[:, column], 2)
    assert (first != second).any()


def test_a_trail_loses_what_its_label_loses() -> None:
    problem = diamond()
    mean = Mean((("b", 5.0),), 4)
    plain, averaged = Walk(problem, ("a", "b")), Walk(problem, ("a", "b"), mean)
    np.testing.assert_array_equal(plain.lost["a", "b"], problem.lost["b"])
    np.testing.assert_array_equal(averaged.lost["a",], problem.lost["a"])
    given = mean.of({name: problem.outputs[name] for name in "ab"})
    wanted = regret(given, problem.outputs["d"], problem.labels, "top1", "excess")
    np.testing.assert_array_equal(averaged.lost["a", "b"], wanted)


@pytest.mark.parametrize(
    ("unit", "wanted"), [("ms", 3e-5), ("gmac", 3e-9), ("usd", 0.0), ("s", 0.0)]
)
def test_a_decision_costs_by_the_features_it_reads(unit: str, wanted: float) -> None:
    assert policy_time(3, unit) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def node() -> Node:
    return node_at(Walk(tiny.problem(0, 50), tiny.GRAPH.answers), EXIT)


def test_a_rule_has_only_the_actions_that_some_image_takes(node: Node) -> None:
    family = node.families[0]
    rng = np.random.default_rng(0)
    width = len(family.features)
    linear = Linear(rng.normal(size=(3, width)), np.array([0.0, -99.0, 0.0]))
    taken = linear.decide(family.given.values)
    rule = rule_at(node, family, linear, taken)
    assert rule is not None
    assert rule.actions == (STOP, BIG)
    problem = tiny.problem(0, 50)
    seen = tiny.EVERYTHING.seen({EXIT: problem.outputs[EXIT]})
    np.testing.assert_array_equal(rule.scores(seen).argmax(axis=1), np.where(taken == 2, 1, 0))


def test_where_all_images_stop_there_is_no_rule(node: Node) -> None:
    family = node.families[0]
    linear = Linear(np.zeros((3, len(family.features))), np.array([1.0, 0.0, 0.0]))
    assert rule_at(node, family, linear, np.zeros(50, int)) is None


def test_where_all_images_go_on_the_rule_looks_at_nothing(node: Node) -> None:
    family = node.families[0]
    linear = Linear(np.zeros((3, len(family.features))), np.array([0.0, 1.0, 0.0]))
    assert rule_at(node, family, linear, np.ones(50, int)) == Rule(EXIT, (SMALL,), ((),), (0.0,))


def test_rules_that_no_image_meets_are_left_out() -> None:
    walk = Walk(tiny.problem(0, 50), (EXIT, SMALL, BIG))
    jump, on = Rule(EXIT, (BIG,), ((),), (0.0,)), Rule(SMALL, (BIG,), ((),), (0.0,))
    assert walk.policy([on, jump]).rules == (jump,)
    assert walk.policy([on, None]) == always(walk.graph, EXIT)


def test_without_a_rule_there_is_nothing_to_average() -> None:
    walk = Walk(tiny.problem(0, 50), (EXIT, BIG), Mean((), None))
    assert walk.policy([None]) == always(walk.graph, EXIT)
