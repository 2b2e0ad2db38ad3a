"""Refusing data on which a certificate would mean nothing, with the number that says so."""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from policy.bounds import binomial, trinomial
from policy.errors import InputError
from policy.losses import Objective
from policy.problem import Problem

_CONSTANT = 1e-6  # spread of confidences that no cut should be laid through
_LEVEL = 1e-3  # how often shuffled labels may pass


def check_sound(parts: Mapping[str, Problem]) -> None:
    """Refuse parts of a table, by their names, from which nothing can be learnt or proved.

    Raises InputError on keys in two parts or twice in one, labels of one class only, confidences
    that are all the same, and labels that look shuffled or shifted.
    """
    check_keys(parts)
    for name, part in parts.items():
        _check_classes(name, part)
        _check_scores(name, part)
        _check_labels(name, part)


def check_keys(parts: Mapping[str, Problem]) -> None:
    """Refuse keys that two parts share, and keys that come twice in one.

    A shared image is known to what it is to judge; one that comes twice counts as two.
    """
    for name, part in parts.items():
        twice = [key for key, count in Counter(part.keys).items() if count > 1]
        if twice:
            raise InputError(
                f"{len(twice)} of {len(part)} keys come more than once in the part {name!r}, for "
                f"example {twice[0]!r}; a certificate needs each image once. Remove the copies."
            )
    for (name, part), (other, another) in combinations(parts.items(), 2):
        shared = sorted(set(part.keys) & set(another.keys))
        if shared:
            raise InputError(
                f"the parts {name!r} and {other!r} share {len(shared)} keys, for example "
                f"{shared[0]!r}; what was seen while fitting proves nothing. Split by key."
            )


def check_size(n: int, objective: Objective, max_loss: float, confidence: float) -> None:
    """Refuse to certify on n images too few for any policy, or a loss that none can keep.

    `max_loss` and `confidence` are fractions. Only "loss" can be proved to be 0: by gains.
    """
    wanted = images_needed(objective, max_loss, confidence)
    if wanted is None and objective == "excess":
        raise InputError(
            f"excess at most {max_loss:g} can be proved on no number of images; allow more"
        )
    if n < (wanted or 0):
        raise InputError(
            f"{n} images to certify on; {objective} at most {max_loss:g} at {confidence * 100:g}% "
            f"confidence needs at least {wanted} even for a policy that never loses one, and "
            "several times as many to save much. Extract more, allow a larger loss, or ask for "
            "less confidence."
        )


def images_needed(objective: Objective, max_loss: float, confidence: float) -> int | None:
    """The least n on which a policy that never gains nor loses passes; None if there is none.

    For excess this is log(1 - confidence) / log(1 - max_loss), rounded up.
    """
    if max_loss <= 0:
        return None
    high = 1
    while not _passes(high, objective, max_loss, confidence):
        high *= 2
    low = high // 2  # does not pass
    while high - low > 1:
        middle = (low + high) // 2
        if _passes(middle, objective, max_loss, confidence):
            high = middle
        else:
            low = middle
    return high


def _passes(n: int, objective: Objective, max_loss: float, confidence: float) -> bool:
    if objective == "excess":
        return binomial(0, n, max_loss) <= 1 - confidence
    return trinomial(0, 0, n, max_loss) <= 1 - confidence


def _check_classes(name: str, part: Problem) -> None:
    found = np.unique(part.labels)
    if len(found) <= 1:
        held = f"class {found[0]}" if len(found) else "nothing"
        raise InputError(
            f"all {len(part)} labels of the part {name!r} are {held}; wanted at least two classes"
        )


def _check_scores(name: str, part: Problem) -> None:
    """Refuse answers of which none is ever surer of one image than of another.

    The full network's own confidence decides nothing, unless it is the only answer.
    """
    answers = [answer for answer in part.graph.answers if answer != part.graph.full]
    spread = {
        answer: float(part.outputs[answer].probabilities[:, 0].std())
        for answer in answers or [part.graph.full]
    }
    if max(spread.values()) <= _CONSTANT:
        answer = max(spread, key=spread.__getitem__)
        level = part.outputs[answer].probabilities[:, 0].mean()
        raise InputError(
            f"the confidence of {', '.join(map(repr, spread))} is the same for all {len(part)} "
            f"images of the part {name!r} (about {level:.4g}, standard deviation "
            f"{spread[answer]:.2g}); a policy has nothing to decide by. Import probabilities, not "
            "only classes."
        )


def _check_labels(name: str, part: Problem) -> None:
    """Refuse labels that the full network does not match better than chance, or better shifted.

    Chance is a random permutation of the labels; about 1 shuffled part in 1,000 passes. Refused
    falsely are networks hardly better than chance (simulated): right on 75% of two even classes,
    in 5% of parts of 100 images and none of 3,000 of 300 images; right on 30% of 1,000 classes, in
    none of 3,000 of 40 images. Labels of which only some are wrong are not noticed.
    """
    full = part.graph.full
    predicted = part.outputs[full].classes[:, 0]
    right, chance, variance = _matches(predicted, part.labels)
    if _at_least(right - chance, variance) > _LEVEL:
        raise InputError(
            f"the labels of the part {name!r} look shuffled: {full!r} is right on {right} of "
            f"{len(part)} images, and would be on {chance:.1f} +- {math.sqrt(variance):.1f} if "
            "they were. Check which label belongs to which image, and the order of the classes."
        )
    for shift in (-1, 1):
        shifted, shifted_chance, _ = _matches(predicted, part.labels + shift)
        if shifted - shifted_chance > right - chance:
            raise InputError(
                f"the labels of the part {name!r} look shifted: {full!r} is right on {right} of "
                f"{len(part)} images, and on {shifted} if {shift:+d} is added to every label. "
                "Check whether the classes are counted from 0."
            )


def _matches(predicted: NDArray[np.int32], labels: NDArray[np.int32]) -> tuple[int, float, float]:
    """Predictions that are right, and the mean and variance of that if labels are permuted."""
    n = len(labels)
    classes, codes = np.unique(np.concatenate([predicted, labels]), return_inverse=True)
    guesses = np.bincount(codes[:n], minlength=len(classes)).astype(np.float64)
    truths = np.bincount(codes[n:], minlength=len(classes)).astype(np.float64)
    # of the matrix match[i, j] = (guess i is truth j): total, and squares less rows and columns
    total = float(guesses @ truths)
    margins = float(guesses @ truths**2 + guesses**2 @ truths)
    squares = total - margins / n + (total / n) ** 2
    return int((predicted == labels).sum()), total / n, max(squares, 0.0) / (n - 1)


def _at_least(surplus: float, variance: float) -> float:
    """P(a shifted Poisson variable of this variance and mean 0 is at least `surplus`).

    Chance matches are Poisson where classes are many, close to normal where they are few.
    """
    if variance == 0 or surplus + variance <= 0:
        return 1.0
    return float(gammainc(surplus + variance, variance))
