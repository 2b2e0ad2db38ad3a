"""Drift: whether a run's shares (of exits, of predicted classes) are those of the table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FALSE_ALARMS = 0.01
_NAMED = 3


@dataclass(frozen=True)
class Drift:
    """`distance` is the total variation between the shares, in [0, 1]: the images that moved.

    `noise` is what sampling alone exceeds with probability FALSE_ALARMS. `moved` are the names
    whose shares moved most, with the run's share less the table's, largest change first.
    """

    distance: float
    noise: float
    moved: tuple[tuple[str, float], ...]

    @property
    def drifted(self) -> bool:
        """Whether sampling does not explain the distance."""
        return self.distance > self.noise


def drift(table: Mapping[str, int], run: Mapping[str, int]) -> Drift | None:
    """Compare counts by name; None where either side is empty. One look: not any-time-valid.

    Without drift the distance has mean at most sum sqrt(p (1 - p) (1/n + 1/m)) / 2, and one image
    changes it by at most 1/n or 1/m, so McDiarmid's inequality bounds the rest. p is the pooled
    share, which is an estimate; the tests count false alarms.
    """
    n, m = sum(table.values()), sum(run.values())
    if not n or not m:
        return None
    names = sorted(table.keys() | run.keys())
    before = np.array([table.get(name, 0) for name in names])
    now = np.array([run.get(name, 0) for name in names])
    change, pooled, scale = now / m - before / n, (now + before) / (n + m), 1 / n + 1 / m
    expected = float(np.sqrt(pooled * (1 - pooled) * scale).sum()) / 2
    most = np.argsort(-np.abs(change), kind="stable")[:_NAMED]
    return Drift(
        distance=float(np.abs(change).sum()) / 2,
        noise=expected + math.sqrt(math.log(1 / FALSE_ALARMS) * scale / 2),
        moved=tuple((names[i], float(change[i])) for i in most),
    )
