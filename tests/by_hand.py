"""The slow, obvious reference for features, means and routing: one image at a time, no arrays."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policy.answers import Answers
from policy.features import Feature
from policy.means import Mean
from policy.rules import STOP, Policy

Outputs = Mapping[str, Answers]


def ranked(answers: Answers, i: int) -> list[tuple[int, float]]:
    """The classes of one image with their probabilities, best first."""
    return list(zip(answers.classes[i].tolist(), answers.probabilities[i].tolist(), strict=True))


def mean_of_lists(
    parts: Sequence[Sequence[tuple[int, float]]], weights: Sequence[float]
) -> list[tuple[int, float]]:
    """The weighted mean of ranked classes, as many as the shortest list has."""
    sums: dict[int, float] = {}
    for part, weight in zip(parts, weights, strict=True):
        for one, probability in part:
            sums[one] = sums.get(one, 0.0) + weight / sum(weights) * probability
    best = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))
    return best[: min(len(part) for part in parts)]


def entropy_of(pairs: Sequence[tuple[int, float]]) -> float:
    """In nats; what the listed classes leave of 1 is one further class."""
    left = max(1 - sum(probability for _, probability in pairs), 0)
    every = [*(probability for _, probability in pairs), left]
    return -sum(p * math.log(p) for p in every if p > 0)


def label_of_image(
    mean: Mean | None, trail: Sequence[str], outputs: Outputs, i: int
) -> tuple[list[tuple[int, float]], float]:
    """The ranked classes of one image whose trail ends here, and their entropy."""
    last = outputs[trail[-1]]
    if mean is None or len(trail) == 1:
        return ranked(last, i), float(last.entropy[i])
    weights = dict(mean.weights)
    parts = [ranked(outputs[name], i)[: mean.k] for name in trail]
    pairs = mean_of_lists(parts, [weights.get(name, 1.0) for name in trail])
    return pairs, entropy_of(pairs)


def scores_of_image(policy: Policy, trail: Sequence[str], outputs: Outputs, i: int) -> list[float]:
    """What the rule at the end of this trail gives to each of its actions."""
    (rule,) = [rule for rule in policy.rules if rule.answer == trail[-1]]
    values = [feature_of_image(policy, feature, trail, outputs, i) for feature in rule.features]
    return [
        sum(w * v for w, v in zip(weights, values, strict=True)) + bias
        for weights, bias in zip(rule.weights, rule.bias, strict=True)
    ]


def feature_of_image(
    policy: Policy, feature: Feature, trail: Sequence[str], outputs: Outputs, i: int
) -> float:
    """One feature of one image on this trail."""
    upto = list(trail[: list(trail).index(feature.answer) + 1])
    pairs, entropy = label_of_image(policy.mean if feature.mean else None, upto, outputs, i)
    classes, probabilities = zip(*pairs, strict=True)
    best = [int(outputs[name].classes[i, 0]) for name in upto]
    if feature.other is not None:
        return compared(feature, classes, ranked(outputs[feature.other], i))
    tail = max(1 - sum(probabilities[: feature.index]), 0)
    return {
        "max_probability": lambda: max(probabilities),
        "margin": lambda: probabilities[0] - probabilities[1],
        "entropy": lambda: entropy,
        "vote": lambda: max(best.count(one) for one in best) / len(best),
        "probability": lambda: probabilities[feature.index],
        "class_probability": lambda: probabilities[classes.index(feature.index)],
        "of_class": lambda: feature.values[classes[0]],
        "tail": lambda: tail,
        "log_tail": lambda: math.log(max(tail, 1e-4)),
        "score": lambda: min(max(scores_of_image(policy, upto, outputs, i)[0], 0), 1),
    }[feature.kind]()


def compared(feature: Feature, classes: Sequence[int], other: Sequence[tuple[int, float]]) -> float:
    """How the classes of one answer compare with another answer."""
    if feature.kind == "agreement":
        return float(classes[0] == other[0][0])
    listed = dict(other[: feature.index])
    if feature.kind == "overlap":
        return sum(one in listed for one in classes[: feature.index]) / feature.index
    return listed.get(classes[0], 0.0)


def route_one_image(policy: Policy, outputs: Outputs, i: int) -> tuple[tuple[str, ...], float]:
    """The trail and the cost of one image: walk, and pay each new stage as it is first needed."""
    trail, paid, cost = [policy.start], set[str](), 0.0
    while True:
        for stage in policy.graph.needed(trail[-1:]):
            if stage.name not in paid:
                paid.add(stage.name)
                cost += stage.cost
        if trail[-1] not in [rule.answer for rule in policy.rules]:
            return tuple(trail), cost
        (rule,) = [rule for rule in policy.rules if rule.answer == trail[-1]]
        action = rule.actions[int(np.argmax(scores_of_image(policy, trail, outputs, i)))]
        if action == STOP:
            return tuple(trail), cost
        trail.append(action)
