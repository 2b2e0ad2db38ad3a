"""What was measured: runs of sides, their medians, and ratios of the runs of one turn."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One run: seconds from the first image to the last label, of the whole process, and of all
    processors; `load` over one minute before it.
    """

    images: int
    seconds: float
    whole: float
    cpu: float
    load: float
    accuracy: float | None


Runs = Mapping[str, Sequence[Run]]
"""Side -> its runs, one a turn."""


def median(runs: Sequence[Run], of: str) -> float:
    """Of one of the numbers of all runs."""
    return float(statistics.median(getattr(run, of) for run in runs))


def ratios(runs: Runs, theirs: Sequence[str], ours: str, of: str = "seconds") -> list[float]:
    """How many times as long theirs took an image (one after the other) as ours, of each turn."""
    turns = zip(*(runs[side] for side in (*theirs, ours)), strict=True)
    each = [[getattr(run, of) / run.images for run in turn] for turn in turns]
    return [sum(turn[:-1]) / turn[-1] for turn in each]


def fastest(runs: Runs, sides: Sequence[str]) -> str:
    """The side with the lowest median."""
    return min(sides, key=lambda side: median(runs[side], "seconds"))
