from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tiny

from policy.answers import Answers
from policy.errors import InputError
from policy.features import Feature, Seen
from policy.graph import Stage, StageGraph
from policy.rules import STOP, Policy, Rule, always
from policy.schema import from_json, to_json

EXIT, SMALL, BIG = tiny.GRAPH.answers
SURE, ENTROPY = Feature(EXIT, "max_probability"), Feature(EXIT, "entropy")
AT_EXIT, AT_SMALL = tiny.POLICY.rules
DIAMOND = StageGraph(
    tuple(Stage(name, float(cost), answers=True) for cost, name in enumerate("abcd", start=1)), "ms"
)


def trail(rng: np.random.Generator, n: int = 20) -> dict[str, Answers]:
    return {EXIT: tiny.outputs(rng, n)[EXIT]}


def random_rule(rng: np.random.Generator, actions: int) -> Rule:
    return Rule(
        EXIT,
        (STOP, SMALL, BIG)[:actions],
        tuple(tuple(row) for row in rng.normal(size=(actions, 2)).tolist()),
        tuple(rng.normal(size=actions).tolist()),
        (SURE, ENTROPY),
    )


def constant(answer: str, action: str) -> Rule:
    return Rule(answer, (action,), weights=((),), bias=(0.0,))


@pytest.mark.parametrize("seed", range(10))
def test_the_action_of_the_highest_score_is_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule, seen = random_rule(rng, 3), trail(rng)
    policy = Policy(tiny.GRAPH, EXIT, (rule,))
    taken = {int(row): action for action, rows in policy.split(seen) for row in rows}
    assert len(taken) == 20
    for row, action in taken.items():
        values = (seen[EXIT].probabilities[row, 0], seen[EXIT].entropy[row])
        scores = [
            sum(w * float(v) for w, v in zip(weights, values, strict=True)) + bias
            for weights, bias in zip(rule.weights, rule.bias, strict=True)
        ]
        assert scores[rule.actions.index(action)] == pytest.approx(max(scores))


def test_the_first_of_equal_scores_wins() -> None:
    rule = Rule(EXIT, (SMALL, STOP, BIG), ((0.0,),) * 3, (1.0, 1.0, 0.0), (SURE,))
    ((action, rows),) = Policy(tiny.GRAPH, EXIT, (rule,)).split(trail(np.random.default_rng(0)))
    assert action == SMALL
    assert rows.tolist() == list(range(20))


def test_an_answer_without_a_rule_stops_every_image() -> None:
    ((action, rows),) = always(tiny.GRAPH, EXIT).split(trail(np.random.default_rng(0), 3))
    assert (action, rows.tolist()) == (STOP, [0, 1, 2])


def test_splitting_divides_the_rows_and_leaves_out_actions_that_none_takes() -> None:
    seen = trail(np.random.default_rng(1), 200)
    parts = dict(tiny.POLICY.split(seen))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(200))
    sure = replace(AT_EXIT, bias=(9.0, 0.0, 0.0))
    assert set(dict(Policy(tiny.GRAPH, EXIT, (sure,)).split(seen))) == {STOP}


def moved_action(rule: Rule, values: np.ndarray, step: np.ndarray) -> int:
    scores = (values + step) @ np.array(rule.weights).T + np.array(rule.bias)
    return int(scores.argmax())


@pytest.mark.parametrize("actions", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_distance_to_cut_is_the_smallest_move_that_changes_the_action(
    seed: int, actions: int
) -> None:
    rng = np.random.default_rng(seed)
    rule, seen = random_rule(rng, actions), trail(rng)
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for row, distance in enumerate(rule.distance_to_cut(Seen(seen))):
        values = np.array([seen[EXIT].probabilities[row, 0], seen[EXIT].entropy[row]], float)
        here = moved_action(rule, values, np.zeros(2))
        within = {moved_action(rule, values, step) for step in circle * distance * 0.999}
        beyond = {moved_action(rule, values, step) for step in circle * distance * 1.001}
        assert within == {here}
        assert beyond > {here}


def test_on_the_cut_the_distance_is_zero() -> None:
    rule = Rule(EXIT, (STOP, BIG), ((1.0,), (0.0,)), (0.0, 0.5), (SURE,))
    even = Answers(np.zeros((1, 1), np.int32), np.full((1, 1), 0.5, np.float32), np.zeros(1, "f4"))
    assert rule.distance_to_cut(Seen({EXIT: even})).tolist() == [0.0]


@pytest.mark.parametrize(
    "rule",
    [
        constant(EXIT, BIG),
        Rule(EXIT, (STOP, BIG), ((2.0,), (2.0,)), (0.0, 1.0), (SURE,)),
        Rule(EXIT, (STOP, BIG), ((), ()), (0.0, 0.0)),
    ],
)
def test_an_action_that_no_move_changes_is_infinitely_far_from_a_cut(rule: Rule) -> None:
    assert rule.distance_to_cut(Seen(trail(np.random.default_rng(0), 3))).tolist() == [np.inf] * 3


def test_trails_are_all_ways_through_the_rules_shorter_first() -> None:
    assert tiny.POLICY.trails == (
        (EXIT,),
        (EXIT, SMALL),
        (EXIT, BIG),
        (EXIT, SMALL, BIG),
    )
    assert always(tiny.GRAPH, BIG).trails == ((BIG,),)


def test_what_may_come_next_is_what_the_rule_names() -> None:
    assert tiny.POLICY.next_answers(EXIT) == (SMALL, BIG)
    assert tiny.POLICY.next_answers(BIG) == ()


def test_reachable_leaves_out_what_no_rule_leads_to() -> None:
    policy = Policy(DIAMOND, "a", (constant("a", "c"), constant("b", "d")))
    assert policy.reachable("a") == ("a", "c")
    assert policy.reachable("b") == ("b", "d")
    assert tiny.POLICY.reachable(EXIT) == (EXIT, SMALL, BIG)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ((), 1),
        ((SURE, Feature(EXIT, "margin")), 2),
        ((Feature(EXIT, "probability", 4), SURE), 5),
        ((Feature(EXIT, "probability", 0),), 1),
        ((Feature(EXIT, "tail", 3), SURE), 3),
        ((Feature(EXIT, "probability", 9), Feature(EXIT, "class_probability", 0)), None),
    ],
)
def test_classes_needed_are_enough_for_every_feature(
    features: tuple[Feature, ...], wanted: int | None
) -> None:
    rule = Rule(EXIT, (STOP,), ((1.0,) * len(features),), (0.0,), features)
    policy = Policy(tiny.GRAPH, EXIT, (rule,))
    assert policy.classes_needed == wanted


@pytest.mark.parametrize(
    "kind", ["max_probability", "margin", "entropy", "vote", "probability", "tail", "log_tail"]
)
def test_a_rule_decides_the_same_on_the_classes_needed_as_on_all(kind: str) -> None:
    rule = replace(AT_EXIT, features=(Feature(EXIT, kind, 2),))
    needed = Policy(tiny.GRAPH, EXIT, (rule,)).classes_needed
    seen = trail(np.random.default_rng(0))
    few = {EXIT: seen[EXIT].top(needed or 0)}
    np.testing.assert_array_equal(rule.scores(Seen(few)), rule.scores(Seen(seen)))


def test_a_policy_reads_back_from_its_json() -> None:
    assert from_json(Policy, to_json(tiny.POLICY), "x") == tiny.POLICY


@pytest.mark.parametrize(
    ("actions", "weights", "bias"),
    [
        ((), (), ()),
        ((STOP,), ((1.0,),), ()),
        ((STOP,), ((1.0, 2.0),), (0.0,)),
        ((STOP,), (), (0.0,)),
        ((STOP, BIG), ((1.0,),), (0.0, 0.0)),
        ((STOP, BIG), ((1.0,), ()), (0.0, 0.0)),
    ],
)
def test_a_rule_whose_shapes_do_not_fit_is_refused(
    actions: tuple[str, ...], weights: tuple[tuple[float, ...], ...], bias: tuple[float, ...]
) -> None:
    with pytest.raises(InputError, match=rf"rule at '{EXIT}': wanted weights .* found shapes"):
        Rule(EXIT, actions, weights, bias, (SURE,))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        replace(AT_SMALL, weights=((number,), (0.0,)))


REFUSED: dict[str, Callable[[], Policy]] = {
    "'decode' is not an answer; answers are": lambda: always(tiny.GRAPH, "decode"),
    "'nowhere' is not an answer": lambda: Policy(tiny.GRAPH, EXIT, (constant("nowhere", STOP),)),
    "two rules at one answer; wanted at most one": lambda: Policy(
        tiny.GRAPH, EXIT, (AT_EXIT, AT_EXIT)
    ),
    r"the rule at 'big' has actions \('small',\); allowed, each once, are \('stop',\)": lambda: (
        Policy(tiny.GRAPH, BIG, (constant(BIG, SMALL),))
    ),
    r"the rule at 'small' has actions \('small',\)": lambda: Policy(
        tiny.GRAPH, SMALL, (constant(SMALL, SMALL),)
    ),
    r"has actions \('stop', 'stop'\); allowed, each once": lambda: Policy(
        tiny.GRAPH, SMALL, (replace(AT_SMALL, actions=(STOP, STOP)),)
    ),
    "'small' looks at 'small.block1.exit', which some trail to it has not got": lambda: Policy(
        tiny.GRAPH, SMALL, (replace(AT_SMALL, features=(ENTROPY,)),)
    ),
    "the rule at 'd' looks at 'b', which some trail to it has not got": lambda: Policy(
        DIAMOND,
        "a",
        (
            Rule("a", ("b", "c"), ((), ()), (0.0, 0.0)),
            constant("b", "d"),
            constant("c", "d"),
            Rule("d", (STOP,), ((1.0,),), (0.0,), (Feature("b", "entropy"),)),
        ),
    ),
    "looks at 'big', which some trail to it has not got": lambda: Policy(
        tiny.GRAPH, SMALL, (replace(AT_SMALL, features=(Feature(BIG, "entropy"),)),)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_policy_that_some_image_could_not_follow_is_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        REFUSED[message]()


def test_a_jump_against_the_edges_of_the_graph_is_refused() -> None:
    graph = replace(tiny.GRAPH, edges=((EXIT, SMALL), (SMALL, BIG)))
    with pytest.raises(InputError, match=r"allowed, each once, are \('stop', 'small'\)"):
        replace(tiny.POLICY, graph=graph)
