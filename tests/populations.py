"""All images there are, so that the truth about every policy on them is known."""

import numpy as np

from policy.answers import Answers
from policy.features import Feature
from policy.graph import Stage, StageGraph
from policy.losses import Objective
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule

GRAPH = StageGraph((Stage("small", 1.0, answers=True), Stage("full", 9.0, answers=True)), "ms")
BOTH: list[Objective] = ["excess", "loss"]
LEVELS = 12


def answers(right: np.ndarray, level: np.ndarray) -> Answers:
    """Two classes, 0 the right one; how sure is one of LEVELS, so ties are many."""
    sure = (0.5 + (level + 1) / (2 * LEVELS + 4)).astype(np.float32)
    best = np.where(right, 0, 1).astype(np.int32)
    return Answers(
        np.stack([best, 1 - best], axis=1),
        np.stack([sure, 1 - sure], axis=1),
        (-sure * np.log(sure) - (1 - sure) * np.log1p(-sure)).astype(np.float32),
    )


def population(objective: Objective, seed: int = 0, size: int = 4000) -> Problem:
    """All images there are: the small network is the likelier right the surer it is."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, LEVELS, size)
    small_right = rng.random(size) < 0.55 + 0.44 * level / (LEVELS - 1)
    full_right = np.where(small_right, rng.random(size) < 0.97, rng.random(size) < 0.85)
    full_level = np.full(size, LEVELS - 1)
    outputs = {"small": answers(small_right, level), "full": answers(full_right, full_level)}
    keys = [f"{number}" for number in range(size)]
    return Problem(GRAPH, keys, np.zeros(size, np.int32), outputs, "top1", objective)


def thresholds() -> list[Policy]:
    """From never stopping at the small network to always."""
    return [
        Policy(
            GRAPH,
            "small",
            (
                Rule(
                    "small",
                    (STOP, "full"),
                    weights=((1.0,), (0.0,)),
                    bias=(-0.5 - (level + 0.5) / (2 * LEVELS + 4), 0.0),
                    features=(Feature("small", "max_probability"),),
                ),
            ),
        )
        for level in reversed(range(LEVELS + 1))
    ]
