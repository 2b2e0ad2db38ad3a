"""--method per-class: thresholds by predicted class, after FrugalML (Chen et al., NeurIPS 2020).

Plans are chains of answers, and FrugalML's own: from one answer to any that may follow it, which of
them by predicted class. As in dag, a plan is fitted for one price of a lost answer after the other,
deepest answer first.
"""

import functools
from collections.abc import Iterator, Mapping

import numpy as np

from policy.chains import chains
from policy.class_plans import Node, Plan
from policy.features import Feature, Seen, feature_values
from policy.fit_shares import SIGN, Candidate, Score, safe_to_bold
from policy.graph import StageGraph
from policy.losses import Metric
from policy.per_class import Fitted, Levels, levels_of
from policy.problem import Problem
from policy.rules import Policy
from policy.search import prices_of

CHAINS = 32
"""Chains tried, of two answers first, and none longer than LONGEST."""

LONGEST = 3

_PASSES = 2  # over a chain: the second on the images that the first sends to each answer

_SCORE: Mapping[Metric, Score] = {
    # each ranks best what is right by its metric, on recorded ImageNet predictions
    "top1": "max_probability",
    "top5": "entropy",
}


def propose(problem: Problem) -> list[Policy]:
    """The policies of all plans and prices that no other beats, safe ones first."""
    graph, score = problem.graph, _SCORE[problem.metric]
    levels, prices = _levels(problem, score), prices_of(problem.graph)
    half = np.random.default_rng(problem.seed).permutation(len(problem)) % 2
    plans = [Plan(problem, score, levels, half, nodes) for nodes in _plans(graph)]
    return safe_to_bold(graph, (_fit(plan, price) for plan in plans for price in prices))


def _plans(graph: StageGraph) -> Iterator[tuple[Node, ...]]:
    """Every answer alone; each with all that may follow it; and the shorter chains."""
    for answer in graph.answers:
        yield (Node((answer,), ()),)
        if len(graph.followers(answer)) > 1:
            yield (Node((answer,), graph.followers(answer)),)
    short = [chain for chain in chains(graph) if 1 < len(chain) <= LONGEST]
    for chain in short[:CHAINS]:
        yield tuple(Node(chain[:end], (chain[end],)) for end in range(1, len(chain)))


def _levels(problem: Problem, score: Score) -> dict[str, Levels]:
    """The scores of every answer, with a class for every number in an answer or a label."""
    listed = [answers.classes for answers in problem.outputs.values()]
    seen = 1 + max(int(found.max(initial=0)) for found in (problem.labels, *listed))
    classes = seen + 1  # the last stands for classes never seen: all that is known is the mean
    found = {}
    for name, answers in problem.outputs.items():
        values = feature_values((Feature(name, score),), Seen({name: answers}))[:, 0]
        found[name] = levels_of(SIGN[score] * values, answers.classes[:, 0], classes)
    return found


def _fit(plan: Plan, price: float) -> Candidate:
    """The policy of a plan for one price, with what it would make of images not fitted on."""
    choices: dict[str, Fitted] = {}
    for _ in range(_PASSES if len(plan.nodes) > 1 else 1):
        for node in reversed(plan.nodes):
            if node.ways:
                choices[node.answer] = plan.fit_node(choices, node, price)
    spent, lost = plan.realised(choices)
    return Candidate(
        cost=plan.problem.graph.cost((plan.start,)) + float(spent[plan.start].mean()),
        regret=float(lost[plan.start].mean()),
        policy=functools.partial(plan.policy, choices),
    )
