from collections.abc import Mapping

import numpy as np
import pytest
import tiny

from policy.answers import Answers
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate

KINDS = ("max_probability", "margin", "entropy", "vote", "probability", "class_probability")


def feature_of_image(feature: Feature, trail: list[str], outputs: Mapping[str, Answers], i: int):  # noqa: ANN201
    """One feature of one image, by hand."""
    answers = outputs[feature.answer]
    probabilities = answers.probabilities[i].tolist()
    classes = answers.classes[i].tolist()
    if feature.kind == "vote":
        seen = trail[: trail.index(feature.answer) + 1]
        best = [int(outputs[name].classes[i, 0]) for name in seen]
        return max(best.count(one) for one in best) / len(best)
    return {
        "max_probability": lambda: max(probabilities),
        "margin": lambda: float(np.float32(probabilities[0]) - np.float32(probabilities[1])),
        "entropy": lambda: float(answers.entropy[i]),
        "probability": lambda: probabilities[feature.index],
        "class_probability": lambda: probabilities[classes.index(feature.index)],
    }[feature.kind]()


def route_one_image(policy: Policy, outputs: Mapping[str, Answers], i: int):  # noqa: ANN201
    """The trail and the cost of one image: walk, and pay each new stage as it is first needed."""
    trail, paid, cost = [policy.start], set[str](), 0.0
    while True:
        for stage in policy.graph.needed(trail[-1:]):
            if stage.name not in paid:
                paid.add(stage.name)
                cost += stage.cost
        rules = [rule for rule in policy.rules if rule.answer == trail[-1]]
        if not rules:
            return tuple(trail), cost
        (rule,) = rules
        values = [feature_of_image(feature, trail, outputs, i) for feature in rule.features]
        best, winner = -np.inf, ""
        for action, weights, bias in zip(rule.actions, rule.weights, rule.bias, strict=True):
            score = sum(w * v for w, v in zip(weights, values, strict=True)) + bias
            if score > best:
                best, winner = score, action
        if winner == STOP:
            return tuple(trail), cost
        trail.append(winner)


def random_policy(rng: np.random.Generator, graph: StageGraph) -> Policy:
    """A policy with rules of every shape; each looks at its own answer and at the start."""
    start = str(rng.choice(graph.answers))
    rules = []
    for answer in graph.reachable(start):
        allowed = (STOP, *graph.followers(answer))
        actions = rng.permutation(allowed)[: rng.integers(len(allowed) + 1)].tolist()
        if not actions:
            continue
        features = tuple(
            Feature(str(rng.choice([start, answer])), kind, int(rng.integers(tiny.CLASSES)))
            for kind in rng.permutation(KINDS)[: rng.integers(4)].tolist()
        )
        weights = rng.normal(size=(len(actions), len(features))).tolist()
        bias = tuple(rng.normal(scale=0.3, size=len(actions)).tolist())
        rules.append(Rule(answer, tuple(actions), tuple(map(tuple, weights)), bias, features))
    return Policy(graph, start, tuple(rules))


FOUR = StageGraph(
    (
        Stage("trunk", 1.0),
        Stage("a", 0.5, ("trunk",), answers=True),
        Stage("deep", 2.0, ("trunk",)),
        Stage("b", 0.5, ("deep",), answers=True),
        Stage("c", 4.0, answers=True),
        Stage("d", 1.0, ("c", "deep"), answers=True),
    ),
    "ms",
)
"""Two exits on one trunk, a second network, and an answer made from both."""


@pytest.mark.parametrize("graph", [tiny.GRAPH, FOUR], ids=["tiny", "four"])
@pytest.mark.parametrize("seed", range(40))
def test_routes_agree_with_walking_each_image_by_hand(seed: int, graph: StageGraph) -> None:
    rng = np.random.default_rng(seed)
    policy = random_policy(rng, graph)
    outputs = dict(
        zip(
            graph.answers,
            [*tiny.outputs(rng, 25).values(), *tiny.outputs(rng, 25).values()],
            strict=False,
        )
    )
    routes = simulate(policy, outputs)
    for i in range(25):
        trail, cost = route_one_image(policy, outputs, i)
        assert routes.trails[routes.trail_of[i]] == trail
        assert routes.cost[i] == pytest.approx(cost)


@pytest.mark.parametrize("seed", range(10))
def test_final_answers_are_those_of_the_last_answer_on_each_trail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, outputs = random_policy(rng, tiny.GRAPH), tiny.outputs(rng, 30)
    routes = simulate(policy, outputs)
    final = routes.answers(outputs, 2)
    for i in range(30):
        last = outputs[routes.trails[routes.trail_of[i]][-1]]
        assert final.classes[i].tolist() == last.classes[i, :2].tolist()
        assert final.probabilities[i].tolist() == last.probabilities[i, :2].tolist()
        assert final.entropy[i] == last.entropy[i]


def test_the_tiny_policy_takes_every_way() -> None:
    routes = simulate(tiny.POLICY, tiny.outputs(np.random.default_rng(0), 400))
    assert set(routes.trails) == set(tiny.POLICY.trails)
    assert len(set(routes.trails)) == len(routes.trails)
    assert set(np.unique(routes.trail_of)) == set(range(4))


def test_a_fixed_answer_costs_the_same_for_every_image() -> None:
    routes = simulate(always(tiny.GRAPH, "small"), tiny.outputs(np.random.default_rng(0), 5))
    assert routes.trails == (("small",),)
    assert routes.cost.tolist() == [4.5] * 5


@pytest.mark.parametrize("seed", range(5))
def test_where_an_image_goes_does_not_depend_on_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = tiny.outputs(rng, 60)
    rows = rng.permutation(60)[:20]
    some = simulate(tiny.POLICY, {name: answers.take(rows) for name, answers in outputs.items()})
    whole = simulate(tiny.POLICY, outputs)
    assert [some.trails[i] for i in some.trail_of] == [
        whole.trails[i] for i in whole.trail_of[rows]
    ]
    np.testing.assert_array_equal(some.cost, whole.cost[rows])


@pytest.mark.parametrize("policy", [tiny.POLICY, always(tiny.GRAPH, "big")], ids=["rules", "one"])
def test_no_image_goes_nowhere_at_no_cost(policy: Policy) -> None:
    none = np.arange(0)
    outputs = {
        name: answers.take(none)
        for name, answers in tiny.outputs(np.random.default_rng(0), 4).items()
    }
    routes = simulate(policy, outputs)
    assert (len(routes.trail_of), len(routes.cost)) == (0, 0)
    assert routes.answers(outputs, 2).classes.shape == (0, 2)
