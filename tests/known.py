"""Problems whose best policy is known: how sure an answer is says exactly when it is right."""

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.graph import Stage, StageGraph
from policy.problem import Problem

TWO = StageGraph((Stage("cheap", 1.0, answers=True), Stage("full", 10.0, answers=True)), "usd")
CHAIN = StageGraph(
    (
        Stage("a", 1.0, answers=True),
        Stage("t", 1.0, ("image", "a")),
        Stage("b", 1.0, ("t",), answers=True),
        Stage("c", 9.0, answers=True),
    ),
    "usd",
)
"""`b` is made from `a`; `c` shares nothing with them."""


def said(right: NDArray[np.bool_], sure: NDArray[np.float64]) -> Answers:
    """Answers that are right (class 0) or wrong, and this sure of it, in [0.5, 1)."""
    best = np.where(right, 0, 1)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    return Answers(
        np.stack([best, 1 - best], axis=1).astype(np.int32),
        probabilities.astype(np.float32),
        entropy.astype(np.float32),
    )


def known(graph: StageGraph, outputs: dict[str, Answers]) -> Problem:
    """Every label is class 0."""
    n = len(outputs[graph.full])
    return Problem(graph, [f"k{i}" for i in range(n)], np.zeros(n, np.int32), outputs)


def two(seed: int, kind: str, n: int = 600) -> Problem:
    """A full network that is always right, after a cheap one of this kind."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 0.999, n)
    right = {
        "confident": sure > 0.8,
        "useless": np.zeros(n, bool),
        "perfect": np.ones(n, bool),
        "calibrated": rng.random(n) < sure,
    }[kind]
    full = said(np.ones(n, bool), np.full(n, 0.9))
    return known(TWO, {"cheap": said(right, sure), "full": full})


def chain(seed: int, n: int = 900, *, useless: bool = False) -> Problem:
    """Images of a difficulty that shows: a, b and c are right up to 1/3, 2/3 and 1 of it."""
    difficulty = np.random.default_rng(seed).random(n)
    sure = 0.999 - 0.49 * difficulty
    ends = {"a": 1 / 3, "b": 1 / 3 if useless else 2 / 3, "c": 1}
    return known(CHAIN, {name: said(difficulty <= end, sure) for name, end in ends.items()})
