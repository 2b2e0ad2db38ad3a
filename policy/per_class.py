"""One threshold and one way on for every predicted class, fitted with few images of each.

The strategy of FrugalML (Chen, Zaharia and Zou, NeurIPS 2020) at one answer: where it is not sure
enough of the class it predicts, go to the answer that is best for this class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.fit_shares import cuts_at_quantiles

Vector = NDArray[np.float64]
Whole = NDArray[np.intp]

STAYS = -1
"""The number of no way."""

LEVELS = 64
"""Thresholds tried: quantiles of the scores."""

_IMAGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e9)
"""Numbers of images that the mean over all classes may count as; at the last all classes agree."""


@dataclass(frozen=True)
class Levels:
    """An answer's scores for n images, cut into levels, and the class it predicts.

    `cuts` [G] rise; `level` [n] counts those that a score reaches, 0 to G. `classes` says how many
    there are, `predicted` [n] is below.
    """

    cuts: Vector
    level: Whole
    predicted: Whole
    classes: int


@dataclass(frozen=True)
class Choice:
    """By class: an image goes on below level `below` [classes], and then `way` [classes] it goes.

    At 0 nobody goes on, at G + 1 everybody.
    """

    below: Whole
    way: Whole

    def taken(self, given: Levels) -> Whole:
        """[n], the number of the way each image goes; STAYS where it goes none."""
        on = given.level < self.below[given.predicted]
        return np.where(on, self.way[given.predicted], STAYS)


@dataclass(frozen=True)
class Fitted:
    """A choice, and what images would do that had no part in it.

    `taken` [n] is by the choice of the half that an image is not in. With few images of a class a
    choice looks far better on its own images than on others, so plans are compared by this.
    """

    choice: Choice
    taken: Whole


def levels_of(scores: Vector, predicted: NDArray[np.int32], classes: int) -> Levels:
    """Cut scores [n] at their quantiles."""
    cuts = cuts_at_quantiles(scores, LEVELS)
    level = np.searchsorted(cuts, scores, side="right")
    return Levels(cuts, level, predicted.astype(np.intp), classes)


def fit_choice(given: Levels, extra: Sequence[Vector], halves: Sequence[Whole]) -> Fitted:
    """The choice that costs least; `extra` has for each way what it costs more than stopping, [n].

    Only images in `halves`, two lists of rows, count. Twelve images of a class say little, so to
    the sum over a class the mean over all images is added, as if it were a number of images. That
    number is the one that costs least on each half with the choice made on the other.
    """
    sums = [_sums(given, extra, rows) for rows in halves]
    sizes = [max(len(rows), 1) for rows in halves]

    def crossed(images: float) -> float:
        first, second = (_least(own, images / n) for own, n in zip(sums, sizes, strict=True))
        return _cost_of(sums[1], first) + _cost_of(sums[0], second)

    images = min(_IMAGES, key=crossed)
    taken = _least(sums[0], images / sizes[0]).taken(given)
    taken[halves[0]] = _least(sums[1], images / sizes[1]).taken(given)[halves[0]]
    return Fitted(_least(sums[0] + sums[1], images / sum(sizes)), taken)


def _sums(given: Levels, extra: Sequence[Vector], rows: Whole) -> Vector:
    """[classes, ways, G + 2], what going on below each level costs more, summed over a class."""
    levels = len(given.cuts) + 1
    place = given.predicted[rows] * levels + given.level[rows]
    tables = [np.bincount(place, more[rows], given.classes * levels) for more in extra]
    table = np.stack(tables).reshape(len(extra), given.classes, levels).swapaxes(0, 1)
    nobody = np.zeros((*table.shape[:2], 1))
    return np.concatenate([nobody, table.cumsum(axis=2)], axis=2)


def _least(sums: Vector, share: float) -> Choice:
    """The least of the sums [classes, ways, G + 2] plus a share of the sum over all classes."""
    shrunk = sums + share * sums.sum(axis=0)
    least = shrunk.reshape(len(sums), -1).argmin(axis=1)
    way, below = np.unravel_index(least, sums.shape[1:])
    return Choice(below, way)


def _cost_of(sums: Vector, choice: Choice) -> float:
    return float(sums[np.arange(len(sums)), choice.way, choice.below].sum())
