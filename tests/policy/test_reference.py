"""The reference counts agree with the slow, obvious count."""

import numpy as np
import tiny

from policy.answers import answers_from_logits
from policy.problem import Problem
from policy.reference import reference
from policy.rules import always


def _problem() -> Problem:
    rng = np.random.default_rng(0)
    graph = tiny.GRAPH
    outputs = {name: answers_from_logits(rng.normal(size=(60, 4)), None) for name in graph.answers}
    return Problem(graph, [str(i) for i in range(60)], rng.integers(0, 4, 60, np.int32), outputs)


def test_the_counts_are_those_of_a_loop_over_the_images() -> None:
    problem = _problem()
    found = reference(always(problem.graph, "small"), problem)
    small, big = (problem.outputs[name].classes[:, 0] for name in ("small", "big"))
    assert found is not None
    assert found.disagreed == sum(a != b for a, b in zip(small, big, strict=True)) > 0
    assert found.exits == {"small": found.images} == {"small": 60}
    assert found.classes == {str(c): int((small == c).sum()) for c in set(small.tolist())}


def test_the_full_network_never_disagrees_with_itself() -> None:
    problem = _problem()
    found = reference(always(problem.graph, problem.graph.full), problem)
    assert found is not None
    assert found.disagreed == 0
