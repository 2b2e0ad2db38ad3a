from dataclasses import replace

import numpy as np
import pytest
import tiny
from by_hand import label_of_image, route_one_image

from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.means import Mean
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate

KINDS = (
    "max_probability",
    "margin",
    "entropy",
    "vote",
    "probability",
    "class_probability",
    "tail",
    "log_tail",
    "of_class",
    "score",
    "agreement",
    "overlap",
    "support",
)


def random_feature(rng: np.random.Generator, start: str, answer: str, *, mean: bool) -> Feature:
    """Of any kind; it looks at an answer itself, at the start, or at both."""
    kind = str(rng.choice(KINDS if answer != start else KINDS[:-4]))
    if kind == "score":
        return Feature(start, "score")
    compares = kind in KINDS[-3:]
    own = compares or rng.random() < 0.7
    meant = mean and kind != "vote" and bool(rng.integers(2))
    return Feature(
        answer if own else start,
        kind,  # type: ignore[arg-type]
        int(rng.integers(1, tiny.CLASSES)),
        other=start if compares else None,
        mean=meant,
        values=tuple(rng.normal(size=tiny.CLASSES).tolist()) if kind == "of_class" else (),
    )


def random_policy(rng: np.random.Generator, graph: StageGraph) -> Policy:
    """A policy with rules of every shape, with or without a mean."""
    start = str(rng.choice(graph.answers))
    weights = tuple((name, float(rng.random() + 0.1)) for name in graph.answers)
    mean = Mean(weights[1:], None) if rng.integers(2) else None
    rules = []
    for answer in graph.reachable(start):
        allowed = (STOP, *graph.followers(answer))
        actions = rng.permutation(allowed)[: rng.integers(len(allowed) + 1)].tolist()
        if answer == start:  # its score may be looked at
            actions = actions or [STOP]
        if not actions:
            continue
        features = tuple(
            random_feature(rng, start, answer, mean=mean is not None)
            for _ in range(rng.integers(5))
        )
        slopes = rng.normal(size=(len(actions), len(features))).tolist()
        bias = tuple(rng.normal(scale=0.3, size=len(actions)).tolist())
        rules.append(Rule(answer, tuple(actions), tuple(map(tuple, slopes)), bias, features))
    return Policy(graph, start, tuple(rules), mean)


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
    given = routes.answers(outputs, 3)
    assert set(routes.arms) == {policy}
    for i in range(25):
        trail, cost = route_one_image(policy, outputs, i)
        assert routes.trails[routes.trail_of[i]] == trail
        assert routes.cost[i] == pytest.approx(cost)
        pairs, entropy = label_of_image(policy.mean, trail, outputs, i)
        assert given.classes[i].tolist() == [one for one, _ in pairs[:3]]
        np.testing.assert_allclose(given.probabilities[i], [p for _, p in pairs[:3]], atol=1e-6)
        assert given.entropy[i] == pytest.approx(entropy, abs=1e-5)


def test_these_policies_look_at_everything() -> None:
    made = [random_policy(np.random.default_rng(seed), FOUR) for seed in range(40)]
    features = [f for policy in made for rule in policy.rules for f in rule.features]
    assert {feature.kind for feature in features} == set(KINDS)
    assert {feature.mean for feature in features} == {True, False}


@pytest.mark.parametrize("seed", range(10))
def test_final_answers_are_those_of_the_last_answer_on_each_trail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, outputs = random_policy(rng, tiny.GRAPH), tiny.outputs(rng, 30)
    rules = [
        replace(rule, features=tuple(replace(f, mean=False) for f in rule.features))
        for rule in policy.rules
    ]
    policy = replace(policy, rules=tuple(rules), mean=None)
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


def test_the_policy_with_everything_takes_every_way() -> None:
    outputs = tiny.outputs(np.random.default_rng(0), 400)
    routes = simulate(tiny.balanced(tiny.EVERYTHING, outputs), outputs)
    assert set(routes.trails) == set(tiny.EVERYTHING.trails)
    assert np.bincount(routes.trail_of).min() > 20


def test_a_label_has_as_many_classes_as_every_image_has() -> None:
    outputs = tiny.outputs(np.random.default_rng(0), 400)
    routes = simulate(tiny.balanced(tiny.EVERYTHING, outputs), outputs)
    assert routes.answers(outputs, 4).classes.shape == (400, 3)
    assert routes.answers(outputs, 2).classes.shape == (400, 2)


def test_a_fixed_answer_costs_the_same_for_every_image() -> None:
    routes = simulate(always(tiny.GRAPH, "small"), tiny.outputs(np.random.default_rng(0), 5))
    assert routes.trails == (("small",),)
    assert routes.cost.tolist() == [4.5] * 5


@pytest.mark.parametrize("seed", range(5))
def test_where_an_image_goes_does_not_depend_on_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = tiny.outputs(rng, 60)
    rows = rng.permutation(60)[:20]
    policy = tiny.balanced(tiny.EVERYTHING, outputs)
    some = simulate(policy, {name: answers.take(rows) for name, answers in outputs.items()})
    whole = simulate(policy, outputs)
    assert [some.trails[i] for i in some.trail_of] == [
        whole.trails[i] for i in whole.trail_of[rows]
    ]
    np.testing.assert_array_equal(some.cost, whole.cost[rows])


@pytest.mark.parametrize(
    "policy",
    [tiny.POLICY, tiny.EVERYTHING, always(tiny.GRAPH, "big")],
    ids=["rules", "everything", "one"],
)
def test_no_image_goes_nowhere_at_no_cost(policy: Policy) -> None:
    none = np.arange(0)
    outputs = {
        name: answers.take(none)
        for name, answers in tiny.outputs(np.random.default_rng(0), 4).items()
    }
    routes = simulate(policy, outputs)
    assert (len(routes.trail_of), len(routes.cost)) == (0, 0)
    assert routes.answers(outputs, 2).classes.shape == (0, 2)
