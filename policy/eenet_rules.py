"""EENet's scores and thresholds as the rules of a policy."""

import itertools

import numpy as np

from policy.eenet_inputs import Exits, Matrix
from policy.eenet_scores import Scores
from policy.features import Feature
from policy.graph import STOP, StageGraph
from policy.rules import Policy, Rule

_HIGHEST = 100.0  # no feature is larger: the largest is an entropy, at most log(classes)


def exit_policy(graph: StageGraph, exits: Exits, scores: Scores, thresholds: Matrix) -> Policy:
    """Stop at the first exit whose score reaches its threshold [K].

    inf: nobody stops there, but later rules may still look at the score. -inf: all do, so what
    comes after is never got.

    The first action of a rule scores what EENet calls the score, before clamping, and the other one
    the threshold, so that the feature `score` of a later rule is EENet's. Thresholds are on scores
    before clamping too: of images beyond 1 that orders some that the paper takes for equal.
    """
    rules = []
    for number, (answer, after) in enumerate(itertools.pairwise(exits.chain)):
        if thresholds[number] == -np.inf:
            break
        own = exits.exits[number]
        width = len(own.features)
        standard = scores.weights[number]
        weights = np.concatenate([standard[:width] / own.scale, standard[width:-1]])
        bias = float(standard[-1] - weights[:width] @ own.centre)
        out_of_reach = 1 + abs(bias) + _HIGHEST * float(np.abs(weights).sum())
        cut = min(float(thresholds[number]), out_of_reach)
        rules.append(
            Rule(
                answer=answer,
                actions=(STOP, after),
                weights=(tuple(weights.tolist()), (0.0,) * len(weights)),
                bias=(bias, cut),
                features=(
                    *own.features,
                    *(Feature(name, "score") for name in exits.chain[:number]),
                ),
            )
        )
    return Policy(graph, exits.chain[0], tuple(rules))
