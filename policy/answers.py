"""Answers: what a network said of n images, and how they are made from its logits."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """What one answering stage said of n images.

    classes: [n, k] int32, by falling probability. probabilities: [n, k] float32, of the full
    softmax. entropy: [n] float32, in nats, of the full softmax; NaN where the network's output was
    not finite, and such a row must not be compared with anything.
    """

    classes: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float32]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.entropy)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """[n], False where the network's output held NaN or infinity."""
        return np.isfinite(self.entropy)

    def take(self, rows: NDArray[np.intp]) -> "Answers":
        """The answers for these rows, in this order."""
        return Answers(self.classes[rows], self.probabilities[rows], self.entropy[rows])

    def top(self, k: int | None) -> "Answers":
        """The same answers with only the k best classes (None: all)."""
        return Answers(self.classes[:, :k], self.probabilities[:, :k], self.entropy)


def concatenate(parts: Iterable[Answers]) -> Answers:
    """One after the other; all parts must have the same k."""
    listed = list(parts)
    return Answers(
        np.concatenate([part.classes for part in listed]),
        np.concatenate([part.probabilities for part in listed]),
        np.concatenate([part.entropy for part in listed]),
    )


def answers_from_logits(logits: NDArray[np.floating], k: int | None) -> Answers:
    """Softmax of logits [n, classes], its k best classes (None: all) and its entropy.

    Extraction and routing both come through here, so a cut fitted on the table meets the same
    numbers in service. Classes of equal logit come in class order. A row with NaN or +infinity has
    entropy NaN; -infinity is a probability of 0.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        logits = np.ascontiguousarray(logits, dtype=np.float32)
    finite = ~(np.isnan(logits) | np.isposinf(logits)).any(axis=1)
    finite &= np.isfinite(logits).any(axis=1)
    safe = np.where(finite[:, None], logits, np.float32(0))
    order = _best(safe, k)
    with np.errstate(over="ignore"):
        shifted = safe - safe.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(axis=1, keepdims=True)
    # -sum p log p = log(total) - sum p * shifted, which never takes the logarithm of 0
    expected = (weights * np.where(weights > 0, shifted, 0)).sum(axis=1, keepdims=True) / total
    entropy = (np.log(total) - expected)[:, 0]
    return Answers(
        classes=order,
        probabilities=np.take_along_axis(weights / total, order, axis=1),
        entropy=np.where(finite, np.maximum(entropy, 0), np.nan).astype(np.float32),
    )


def _best(logits: NDArray[np.float32], k: int | None) -> NDArray[np.int32]:
    """The k best classes [n, k] of finite logits, by falling logit, then in class order.

    Sorting all of a thousand classes takes sixteen times as long as finding five and sorting them.
    """
    classes = logits.shape[1]
    if k is None or k >= classes:
        return np.argsort(-logits, axis=1, kind="stable").astype(np.int32)
    found = np.sort(np.argpartition(logits, classes - k, axis=1)[:, classes - k :], axis=1)
    values = np.take_along_axis(logits, found, axis=1)
    order = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # where others are as good as the last of them, class order decides which belong to the best
    tied = (logits >= values.min(axis=1, keepdims=True)).sum(axis=1) > k
    order[tied] = np.argsort(-logits[tied], axis=1, kind="stable")[:, :k]
    return order.astype(np.int32)


def answers_from_probabilities(
    classes: NDArray[np.int32], probabilities: NDArray[np.float32]
) -> Answers:
    """Answers recorded elsewhere: the k best classes [n, k] and their probabilities.

    Rows are sorted by falling probability. What the k best leave of the full softmax counts as one
    further class, so the entropy is a lower bound, exact where all classes are given.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sorted_probabilities = np.take_along_axis(probabilities, order, axis=1)
    rest = np.maximum(1 - sorted_probabilities.sum(axis=1, dtype=np.float64, keepdims=True), 0)
    every = np.concatenate([sorted_probabilities, rest], axis=1)
    entropy = -(every * np.log(np.where(every > 0, every, 1))).sum(axis=1)
    return Answers(
        classes=np.take_along_axis(classes, order, axis=1),
        probabilities=sorted_probabilities,
        entropy=entropy.astype(np.float32),
    )
