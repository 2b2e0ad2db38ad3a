"""What every fitting method promises of the policies that it proposes, each as a check."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from policy.answers import Answers, answers_from_logits
from policy.evaluate import measure
from policy.graph import Stage, StageGraph
from policy.mixture import Mixture, Routing
from policy.problem import Problem
from policy.rules import Policy, always
from policy.schema import from_json, to_json
from policy.simulate import simulate

Propose = Callable[[Problem], Sequence[Routing]]
Check = Callable[[Propose], None]

GRAPH = StageGraph(
    (
        Stage("trunk", 1.0),
        Stage("a", 0.5, ("trunk",), answers=True),
        Stage("b", 2.0, ("trunk",), answers=True),
        Stage("c", 8.0, answers=True),
    ),
    unit="usd",
    edges=(("a", "b"), ("b", "c")),
)
"""An exit, the network it belongs to, and a dear network, which may not follow the exit."""


def problem(n: int = 400, k: int | None = None, graph: StageGraph = GRAPH) -> Problem:
    """Images of four classes, each of a difficulty that shows; dearer answers are better."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, n).astype(np.int32)
    difficulty = rng.uniform(0.2, 2.0, n)
    outputs = {}
    for number, name in enumerate(graph.answers):
        logits = rng.normal(size=(n, 4)) * difficulty[:, None]
        logits[np.arange(n), labels] += 1.5 + number
        outputs[name] = answers_from_logits(2 * logits, k)
    return Problem(graph, [f"k{i}" for i in range(n)], labels, outputs, objective="loss")


def starts_with_the_full_network(propose: Propose) -> None:
    assert propose(problem())[0] == always(GRAPH, "c")


def goes_from_safe_to_bold(propose: Propose) -> None:
    given = problem()
    points = measure(propose(given), given)
    place = np.arange(len(points))
    assert np.corrcoef(place, [point.cost for point in points])[0, 1] < -0.7
    assert np.corrcoef(place, [point.regret for point in points])[0, 1] > 0.5
    assert points[-1].cost == 1.5


def proposes_nothing_twice(propose: Propose) -> None:
    policies = propose(problem())
    assert len(set(policies)) == len(policies)


def survives_its_json(propose: Propose) -> None:
    given = problem()
    for policy in propose(given)[::5]:
        kind = Mixture if isinstance(policy, Mixture) else Policy
        again = from_json(kind, to_json(policy), "x")
        before, after = (simulate(one, given.outputs, given.keys) for one in (policy, again))
        assert before.trails == after.trails
        assert (before.trail_of == after.trail_of).all()


def goes_along_edges_only(propose: Propose) -> None:
    given = problem()
    for policy in propose(given):
        for trail in simulate(policy, given.outputs, given.keys).trails:
            assert trail in {("a",), ("b",), ("c",), ("a", "b"), ("b", "c"), ("a", "b", "c")}


def proposes_a_single_answer_alone(propose: Propose) -> None:
    graph = StageGraph((Stage("only", 3.0, answers=True),), "ms")
    assert propose(problem(graph=graph)) == [always(graph, "only")]


def needs_only_one_class_recorded(propose: Propose) -> None:
    given = problem(k=1)
    assert len(measure(propose(given), given)) > 2


def bears_confidences_that_are_all_the_same(propose: Propose) -> None:
    given = problem()
    for sure in (0.25, 1.0):
        rest = (1 - sure) / 3
        probabilities = np.tile(np.array([sure, rest, rest, rest], np.float32), (400, 1))
        entropy = np.full(400, 0.0 if sure == 1 else np.log(4), np.float32)
        outputs = {
            name: Answers(answers.classes, probabilities, entropy)
            for name, answers in given.outputs.items()
        }
        policies = propose(replace(given, outputs=outputs))
        assert policies[0] == always(GRAPH, "c")
        assert policies[-1] == always(GRAPH, "a")


def bears_few_images(propose: Propose) -> None:
    for n in (1, 2, 3):
        assert propose(problem(n))[0] == always(GRAPH, "c")


def gives_the_same_for_the_same_seed(propose: Propose) -> None:
    assert list(propose(problem())) == list(propose(problem()))


CHECKS = [
    pytest.param(check, id=check.__name__)
    for check in (
        starts_with_the_full_network,
        goes_from_safe_to_bold,
        proposes_nothing_twice,
        survives_its_json,
        goes_along_edges_only,
        proposes_a_single_answer_alone,
        needs_only_one_class_recorded,
        bears_confidences_that_are_all_the_same,
        bears_few_images,
        gives_the_same_for_the_same_seed,
    )
]
