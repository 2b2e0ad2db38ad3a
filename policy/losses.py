"""The 0/1 losses, top-1 and top-5, of answers against labels."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError

Metric = Literal["top1", "top5"]
Objective = Literal["excess", "loss"]

_K: dict[Metric, int] = {"top1": 1, "top5": 5}


def knows(answers: Answers, metric: Metric) -> bool:
    """Whether enough classes are recorded for a metric: k of them, or all there are."""
    k = _K[metric]
    everything = np.allclose(answers.probabilities.sum(axis=1), 1, atol=1e-3)
    return answers.classes.shape[1] >= k or bool(everything)


def wrong(answers: Answers, labels: NDArray[np.int32], metric: Metric) -> NDArray[np.bool_]:
    """[n], True where the label is not among the best one (five) classes.

    Raises InputError if too few classes are recorded to tell.
    """
    k = _K[metric]
    if not knows(answers, metric):
        raise InputError(
            f"{metric} needs the {k} best classes; the table holds {answers.classes.shape[1]}. "
            "Extract with a larger --topk."
        )
    hit: NDArray[np.bool_] = (answers.classes[:, :k] == labels[:, None]).any(axis=1)
    return ~hit


def regret(
    answers: Answers, full: Answers, labels: NDArray[np.int32], metric: Metric, objective: Objective
) -> NDArray[np.float64]:
    """[n], what answering so loses against the full network.

    excess: (L(answer) - L(full))+, in {0, 1}, as in Bolukbasi et al. 2017: no credit for being
    right where the full network is wrong. loss: L(answer) - L(full), in {-1, 0, 1}.
    """
    lost = wrong(answers, labels, metric).astype(np.float64) - wrong(full, labels, metric)
    return np.maximum(lost, 0) if objective == "excess" else lost


def regrets(
    outputs: Mapping[str, Answers],
    full: str,
    labels: NDArray[np.int32],
    metric: Metric,
    objective: Objective,
) -> dict[str, NDArray[np.float64]]:
    """`regret` of every answer of a table."""
    return {
        name: regret(answers, outputs[full], labels, metric, objective)
        for name, answers in outputs.items()
    }
