"""--method myopic: one threshold on confidence for all answers (Bolukbasi et al. 2017)."""

import numpy as np

from policy.fit_shares import (
    Matrix,
    ScoredChain,
    candidate,
    cuts_at_quantiles,
    safe_to_bold,
    scored_chains,
)
from policy.problem import Problem
from policy.rules import Policy

THRESHOLDS = 60
"""Thresholds tried on each chain, between quantiles of the scores that may end a trail."""


def propose(problem: Problem) -> list[Policy]:
    """Every threshold on every chain, on entropy and on maximum probability; safe ones first."""
    found = [
        candidate(given, thresholds)
        for score in ("entropy", "max_probability")
        for given in scored_chains(problem, score)
        for thresholds in _same_everywhere(given)
    ]
    return safe_to_bold(problem.graph, found)


def _same_everywhere(given: ScoredChain) -> list[Matrix]:
    """[K] each, without a threshold at the last answer, where everybody leaves."""
    answers = len(given.chain)
    if answers == 1:
        return [np.array([-np.inf])]
    cuts = cuts_at_quantiles(given.scores[:, :-1].ravel(), THRESHOLDS)
    return [np.append(np.full(answers - 1, cut), -np.inf) for cut in cuts]
