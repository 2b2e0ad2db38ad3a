"""--method pabee: agreement so far (Zhou et al. 2020) with geometric exit shares.

As in Ilhan et al. 2024 the score is the share of the answers so far that agree on the commonest
class. It takes few values: at the first answer one (everybody agrees with itself, so nobody leaves
there), at the second two. So few different shares exist, and there are far fewer policies than by
other scores. Between two of them only a mixture meets a budget.
"""

from policy.fit_shares import propose_geometric
from policy.problem import Problem
from policy.rules import Policy


def propose(problem: Problem) -> list[Policy]:
    """Policies from safe to bold over the chains of the graph."""
    return propose_geometric(problem, "vote")
