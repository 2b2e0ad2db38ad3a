"""--method single: every network on its own, the baseline that any routing has to beat."""

from policy.problem import Problem
from policy.rules import Policy, always


def propose(problem: Problem) -> list[Policy]:
    """Always the same answer: a policy for each, the full network first, by falling cost."""
    graph = problem.graph
    answers = sorted(graph.answers, key=lambda answer: -graph.cost((answer,)))
    return [always(graph, answer) for answer in answers]
