"""What routing means, in twenty lines: replay a policy on recorded answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.errors import InputError
from policy.mixture import Routing
from policy.rules import STOP, Policy

_BLOCK = 16384  # rows


@dataclass(frozen=True)
class Routes:
    """Where a policy sent n images. `trail_of` [n] indexes `trails`; `cost` [n] per image.

    `arms` has for each of the trails the policy that was followed (see mixture).
    """

    trails: tuple[tuple[str, ...], ...]
    arms: tuple[Policy, ...]
    trail_of: NDArray[np.intp]
    cost: NDArray[np.float64]

    def answers(self, outputs: Mapping[str, Answers], k: int) -> Answers:
        """The answers given [n] with their k best classes, or as many as every answer has."""
        if not self.trails:  # no images
            return next(iter(outputs.values())).top(k)
        groups = [np.flatnonzero(self.trail_of == i) for i in range(len(self.trails))]
        parts = [
            policy.label({answer: outputs[answer].take(rows) for answer in trail})
            for policy, trail, rows in zip(self.arms, self.trails, groups, strict=True)
        ]
        k = min(k, *(part.classes.shape[1] for part in parts))
        given = concatenate(part.top(k) for part in parts)
        return given.take(np.argsort(np.concatenate(groups)))


def simulate(
    policy: Routing, outputs: Mapping[str, Answers], keys: Sequence[str] | None = None
) -> Routes:
    """Route every image of a table; `outputs` holds each answer for the same n images, aligned.

    This defines what a policy does. The router on workers must agree with it row for row. `keys`
    [n] decide between the arms of a mixture; a single policy needs none.
    """
    n = len(next(iter(outputs.values())))
    found: dict[tuple[int, tuple[str, ...]], int] = {}
    trail_of, cost = np.zeros(n, dtype=np.intp), np.zeros(n)
    waiting = _starts(policy, n, keys)
    while waiting:
        number, trail, rows = waiting.pop()
        arm = policy.arms[number]
        got = {answer: outputs[answer].take(rows) for answer in trail}
        for action, chosen in arm.split(got):
            if action == STOP:
                trail_of[rows[chosen]] = found.setdefault((number, trail), len(found))
                cost[rows[chosen]] = arm.graph.cost(trail)
            else:
                waiting.append((number, (*trail, action), rows[chosen]))
    arms = tuple(policy.arms[number] for number, _ in found)
    return Routes(tuple(trail for _, trail in found), arms, trail_of, cost)


def _starts(
    policy: Routing, n: int, keys: Sequence[str] | None
) -> list[tuple[int, tuple[str, ...], NDArray[np.intp]]]:
    """The number of an arm, its first answer, and rows in blocks that fit a processor's cache."""
    arm_of = np.zeros(n, dtype=np.intp)
    if len(policy.arms) > 1:
        if keys is None or len(keys) != n:
            raise InputError(
                f"a mixture of policies needs the key of each of {n} images; "
                f"found {'none' if keys is None else len(keys)}"
            )
        arm_of = policy.arm_of(keys)
    return [
        (number, (arm.start,), rows[first : first + _BLOCK])
        for number, arm in enumerate(policy.arms)
        for rows in [np.flatnonzero(arm_of == number)]
        for first in range(0, len(rows), _BLOCK)
    ]
