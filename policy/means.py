"""Averaged answers: the label from the weighted mean of the answers on the trail."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.answers import Answers, answers_from_probabilities
from policy.errors import InputError
from policy.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class Mean:
    """How much each answer counts in the mean of those on a trail (Wang et al. 2022, committees).

    `weights` are by answer, above 0; an answer without one counts 1. Of each answer the `k` best
    classes enter (None: all), the others count as probability 0: the same k in a table and in
    service.
    """

    weights: tuple[tuple[str, float], ...]
    k: int | None

    def __post_init__(self) -> None:
        """Refuse what would divide by nothing."""
        wrong = [pair for pair in self.weights if not (math.isfinite(pair[1]) and pair[1] > 0)]
        if wrong or len(self._weight) < len(self.weights):
            raise InputError(
                f"weights of a mean: {wrong or 'an answer is given twice'}; wanted one finite "
                "number above 0 for each answer"
            )
        if self.k is not None and self.k < 1:
            raise InputError(f"a mean of the {self.k} best classes; wanted at least 1")

    @functools.cached_property
    def _weight(self) -> Mapping[str, float]:
        return dict(self.weights)

    def of(self, trail: Mapping[str, Answers]) -> Answers:
        """The mean of the answers on a trail; a single answer stays what it is.

        Raises InputError where fewer than k classes are at hand: that would be another mean.
        """
        if len(trail) == 1:
            return next(iter(trail.values()))
        parts = [answers.top(self.k) for answers in trail.values()]
        held = min(part.classes.shape[1] for part in parts)
        if self.k is not None and held < self.k:
            raise InputError(
                f"a mean of the {self.k} best classes; the answers hold {held}. Extract with a "
                "larger --topk."
            )
        return weighted_mean(parts, [self._weight.get(name, 1.0) for name in trail])


def weighted_mean(parts: Sequence[Answers], weights: Sequence[float]) -> Answers:
    """The mean of several answers for the same n images; weights need not sum to 1.

    As many classes as the narrowest part has, by falling probability, equal ones in class order;
    a class that a part does not list has probability 0 there. What the listed classes leave of 1
    counts as one further class in the entropy.
    """
    share = np.asarray(weights, dtype=np.float64) / sum(weights)
    classes = np.concatenate([part.classes for part in parts], axis=1)
    probabilities = np.concatenate(
        [part.probabilities * weight for part, weight in zip(parts, share, strict=True)], axis=1
    )
    order = np.argsort(classes, axis=1, kind="stable")
    classes = np.take_along_axis(classes, order, axis=1)
    total = _summed(classes, np.take_along_axis(probabilities, order, axis=1), len(parts))
    k = min(part.classes.shape[1] for part in parts)
    best = np.argsort(-total, axis=1, kind="stable")[:, :k]
    return answers_from_probabilities(
        np.take_along_axis(classes, best, axis=1),
        np.maximum(np.take_along_axis(total, best, axis=1), 0).astype(np.float32),
    )


def _summed(
    classes: NDArray[np.int32], probabilities: NDArray[np.float64], most: int
) -> NDArray[np.float64]:
    """The sum over equal classes, at the first of them; -1 at the others. Rows are sorted."""
    total = probabilities.copy()
    for step in range(1, most):  # a class comes at most once from each part
        same = classes[:, step:] == classes[:, :-step]
        total[:, :-step] += np.where(same, probabilities[:, step:], 0)
    repeated = classes[:, 1:] == classes[:, :-1]
    total[:, 1:][repeated] = -1
    return total
