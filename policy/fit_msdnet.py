"""--method msdnet: maximum probability with geometric exit shares (Huang et al. 2018)."""

from policy.fit_shares import propose_geometric
from policy.problem import Problem
from policy.rules import Policy


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the chains of the graph."""
    return propose_geometric(problem, "max_probability")
