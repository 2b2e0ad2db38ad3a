"""The chains that EENet is fitted on: the longest, and those that a quick look finds good."""

from collections import Counter

from policy.chains import Chain, chains
from policy.eenet_thresholds import thresholds_by_share
from policy.fit_shares import RATIOS, candidate, geometric_shares, scored
from policy.frontier import undominated
from policy.problem import Problem

MOST = 3
"""Chains that are fitted; each takes seconds."""

_EVERY = 4  # of the ratios of the geometric series: a look, not a fit


def promising(problem: Problem) -> list[Chain]:
    """The graph's longest chain, then those that exit best by maximum probability.

    A chain through several networks pays for each of them, so fewer can be better. How often a
    chain lies where no other beats it in both cost and regret decides, with geometric shares.
    """
    found: list[tuple[Chain, float, float]] = []
    every = chains(problem.graph)
    for chain in every:
        given = scored(problem, chain, "max_probability")
        for ratio in RATIOS[::_EVERY]:
            shares = geometric_shares(len(chain), float(ratio))
            one = candidate(given, thresholds_by_share(given.scores, shares))
            found.append((chain, one.cost, one.regret))
    kept = undominated([cost for _, cost, _ in found], [regret for *_, regret in found])
    wins = Counter(found[number][0] for number in kept)
    best = [chain for chain, _ in wins.most_common() if chain != every[0]]
    return [every[0], *best[: MOST - 1]]
