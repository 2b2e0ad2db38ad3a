"""What routing means, in twenty lines: replay a policy on recorded answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.rules import STOP, Policy


@dataclass(frozen=True)
class Routes:
    """Where a policy sent n images. `trail_of` [n] indexes `trails`; `cost` [n] per image."""

    trails: tuple[tuple[str, ...], ...]
    trail_of: NDArray[np.intp]
    cost: NDArray[np.float64]

    def answers(self, outputs: Mapping[str, Answers], k: int) -> Answers:
        """The final answers [n] with their k best classes, or as many as every answer has."""
        if not self.trails:  # no images
            return next(iter(outputs.values())).top(k)
        k = min(k, *(outputs[trail[-1]].classes.shape[1] for trail in self.trails))
        groups = [np.flatnonzero(self.trail_of == i) for i in range(len(self.trails))]
        parts = [
            outputs[trail[-1]].take(rows).top(k)
            for trail, rows in zip(self.trails, groups, strict=True)
        ]
        return concatenate(parts).take(np.argsort(np.concatenate(groups)))


def simulate(policy: Policy, outputs: Mapping[str, Answers]) -> Routes:
    """Route every image of a table; `outputs` holds each answer for the same n images, aligned.

    This defines what a policy does. The router on workers must agree with it row for row.
    """
    n = len(outputs[policy.start])
    trails: list[tuple[str, ...]] = []
    trail_of, cost = np.zeros(n, dtype=np.intp), np.zeros(n)
    waiting: list[tuple[tuple[str, ...], NDArray[np.intp]]] = [((policy.start,), np.arange(n))]
    while waiting:
        trail, rows = waiting.pop()
        got = {answer: outputs[answer].take(rows) for answer in trail}
        for action, chosen in policy.split(got):
            if action == STOP:
                trail_of[rows[chosen]], cost[rows[chosen]] = len(trails), policy.graph.cost(trail)
                trails.append(trail)
            else:
                waiting.append(((*trail, action), rows[chosen]))
    return Routes(tuple(trails), trail_of, cost)
