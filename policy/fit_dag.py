"""--method dag: early exit and network selection as Bolukbasi et al. 2017 do, in one graph."""

from policy.problem import Problem
from policy.recursion import sweep
from policy.rules import Policy
from policy.search import search


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the best sets of answers; the last answer is the label."""
    return search(problem, sweep)
