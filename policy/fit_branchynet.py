"""--method branchynet: entropy (Teerapittayanon et al. 2016) with geometric exit shares."""

from policy.fit_shares import propose_geometric
from policy.problem import Problem
from policy.rules import Policy


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the chains of the graph."""
    return propose_geometric(problem, "entropy")
