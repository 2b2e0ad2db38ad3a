"""The random audit of early exits: which images, and what is seen without the truth.

An audited image that stopped early goes through the full network too. Nobody knows its true label,
so the full network's best class stands in for it. Write D for the event that the early answer is
wrong by that stand-in: top1, the labels differ; top5, the full network's best class is not among
the early answer's five best.

top1: an image in excess (early wrong, full right) has full's best class as its truth, so it is in
D: excess <= P(D), image by image. The objective "loss" is excess minus gains, so it is at most
excess, and so at most P(D). top5: full is right with any of its five classes; D bounds only the
part of the excess in which full's *best* class is the truth. Where the truth is full's second to
fifth class, D may miss an excess: there P(D) is a signal compared with the table's, not a bound.

The rate's denominator is all chosen images, early or not, as in the promise. Where the full network
was run anyway its answer is there for nothing: alone it agrees with itself; averaged it may not.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError
from policy.losses import Metric, wrong
from policy.split import hash_of_keys

_SALT = "audit of early exits: "
"""Else the audit would follow from the part of the table that the same hash put the key in."""


def audited(keys: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """[n], True for the images to audit where they stop early; the same ones in every run.

    `fraction` is in [0, 1]; raises InputError outside it. A key's fate depends on the key and the
    seed alone, and is independent of the table's splits and of a mixture's arms.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"audit fraction {fraction:g}; wanted 0 (no audit) to 1 (every image)")
    salted = [f"{_SALT}{key}" for key in keys]
    chosen: NDArray[np.bool_] = hash_of_keys(salted, seed) < fraction
    return chosen


def disagrees(early: Answers, full: NDArray[np.int32], metric: Metric) -> NDArray[np.bool_]:
    """[n], the event D above; `full` [n] is the full network's best class.

    Raises InputError where `early` holds too few classes for the metric.
    """
    return wrong(early, full, metric)
