"""Early exit by one score along a chain: thresholds from exit shares, as MSDNet and others do it.

An image leaves at the first answer whose score reaches that answer's threshold. The thresholds come
from the shares of images that should leave at each answer (Algorithm 1 of Ilhan et al. 2024), those
from a geometric series (Huang et al. 2018) or a search (see fit_search).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policy.chains import Chain, chains
from policy.eenet_thresholds import exit_of_each, thresholds_by_share
from policy.features import Feature, Seen, feature_values
from policy.frontier import undominated
from policy.graph import StageGraph
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule, always

Matrix = NDArray[np.float64]
Score = Literal["max_probability", "entropy", "vote"]

RATIOS = np.logspace(-3, 3, 61)
"""Of the geometric series: an answer's share over that of the one before it."""

SIGN: Mapping[Score, float] = {"max_probability": 1.0, "entropy": -1.0, "vote": 1.0}


@dataclass(frozen=True)
class ScoredChain:
    """A chain of K answers for n images.

    `scores` [n, K], higher is surer; `lost` [n, K], what each answer loses as the label; `costs`
    [K], of the chain up to and including each answer.
    """

    graph: StageGraph
    chain: Chain
    score: Score
    scores: Matrix
    lost: Matrix
    costs: Matrix

    def policy(self, thresholds: Matrix) -> Policy:
        """Leave at the first answer whose score reaches its threshold [K].

        inf: nobody leaves there. -inf: all do, so the answers after it are never got.
        """
        rules = []
        sign = SIGN[self.score]
        for (answer, after), cut in zip(
            itertools.pairwise(self.chain), thresholds[:-1].tolist(), strict=True
        ):
            if cut == -np.inf:
                break
            if cut == np.inf:
                rules.append(Rule(answer, (after,), weights=((),), bias=(0.0,)))
                continue
            feature = Feature(answer, self.score)
            weights = ((sign,), (0.0,))
            rules.append(Rule(answer, (STOP, after), weights, (-cut, 0.0), (feature,)))
        return Policy(self.graph, self.chain[0], tuple(rules))


@dataclass(frozen=True)
class Candidate:
    """A policy, made when it is wanted, with its mean cost and regret on the fit part."""

    cost: float
    regret: float
    policy: Callable[[], Policy]


def scored(problem: Problem, chain: Chain, score: Score) -> ScoredChain:
    """Read one score at every answer of a chain."""
    graph = problem.graph
    prefixes = [chain[: number + 1] for number in range(len(chain))]
    seen = Seen({name: problem.outputs[name] for name in chain})
    features = [Feature(name, score) for name in chain]
    return ScoredChain(
        graph=graph,
        chain=chain,
        score=score,
        scores=SIGN[score] * feature_values(features, seen),
        lost=np.stack([problem.lost[name] for name in chain], axis=1),
        costs=np.array([graph.cost(prefix) for prefix in prefixes]),
    )


def scored_chains(problem: Problem, score: Score) -> list[ScoredChain]:
    """Every answer alone, and the chains of the graph."""
    singles = [(answer,) for answer in problem.graph.answers]
    every = dict.fromkeys([*singles, *chains(problem.graph)])
    return [scored(problem, chain, score) for chain in every]


def candidate(given: ScoredChain, thresholds: Matrix) -> Candidate:
    """What thresholds [K] cost and lose on the images of the chain."""
    leaves = exit_of_each(given.scores, thresholds)
    return Candidate(
        cost=float(given.costs[leaves].mean()),
        regret=float(given.lost[np.arange(len(leaves)), leaves].mean()),
        policy=functools.partial(given.policy, thresholds),
    )


def safe_to_bold(graph: StageGraph, candidates: Iterable[Candidate]) -> list[Policy]:
    """The full network, then the candidates that no other beats in both cost and regret."""
    listed = list(candidates)
    kept = undominated([one.cost for one in listed], [one.regret for one in listed])
    policies = [listed[number].policy() for number in kept]
    return list(dict.fromkeys([always(graph, graph.full), *policies]))


def cuts_at_quantiles(scores: Matrix, count: int) -> Matrix:
    """At most `count` rising thresholds, about as many of the scores [n] between any two.

    Each lies halfway between two different scores, so that no score of the fit part is on it.
    """
    rising = np.unique(scores)
    places = np.quantile(scores, np.linspace(0, 1, count + 1)[1:], method="nearest")
    at = np.searchsorted(rising, np.unique(places[places > rising[0]]))
    cuts: Matrix = (rising[at - 1] + rising[at]) / 2
    return cuts


def geometric_shares(answers: int, ratio: float) -> Matrix:
    """[K], proportional to ratio^k and summing to 1."""
    powers = ratio ** np.arange(answers, dtype=np.float64)
    shares: Matrix = powers / powers.sum()
    return shares


def propose_geometric(problem: Problem, score: Score) -> list[Policy]:
    """Geometric shares of every ratio on every chain, safe ones first.

    Images of equal score leave together, so the shares asked for are met only as nearly as ties
    allow: always for real-valued scores, seldom for a vote. A vote starts at the second answer: the
    first always agrees with itself.
    """
    found = []
    for given in scored_chains(problem, score):
        answers = len(given.chain)
        for ratio in RATIOS if answers > 1 else (1.0,):
            shares = _shares(score, answers, ratio)
            found.append(candidate(given, thresholds_by_share(given.scores, shares)))
    return safe_to_bold(problem.graph, found)


def _shares(score: Score, answers: int, ratio: float) -> Matrix:
    if score == "vote" and answers > 1:
        return np.append(0.0, geometric_shares(answers - 1, ratio))
    return geometric_shares(answers, ratio)
