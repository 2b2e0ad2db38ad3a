"""What the project wants of the ratios, and what was found."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers import sides
from benchmarks.peers.results import Runs, fastest, ratios
from benchmarks.peers.sides import Side


@dataclass(frozen=True)
class Target:
    """`ours` is to be at least `wanted` times as fast as `theirs`.

    Of several `theirs` the fastest counts, or with `summed` all of them one after the other. With
    `predicted` it is to be that share of the speed-up that the costs of the policy predict.
    """

    title: str
    theirs: tuple[Side, ...]
    ours: Side
    wanted: float | None
    predicted: bool = False
    summed: bool = False


TARGETS = (
    Target(
        "(a) tuned, share of the prediction",
        (sides.PLAIN_TUNED,),
        sides.OURS_FITTED,
        0.95,
        predicted=True,
    ),
    Target(
        "(a) as it comes, share of the prediction",
        (sides.PLAIN,),
        sides.OURS_FITTED,
        0.95,
        predicted=True,
    ),
    Target(
        "our own big network, share of the prediction",
        (sides.OURS,),
        sides.OURS_FITTED,
        None,
        predicted=True,
    ),
    Target("(a) tuned, big network", (sides.PLAIN_TUNED,), sides.OURS, None),
    Target("(b) the faster one", (sides.BY_HAND, sides.BY_HAND_CORES), sides.OURS_FITTED, 0.97),
    Target("(c) one network, same precision", (sides.BEAM_TUNED,), sides.OURS, 1.0),
    Target("(c) cascade, same precision", (sides.BEAM_CUT_TUNED,), sides.OURS_CUT, 1.2),
    Target("(c) one network, defaults", (sides.BEAM,), sides.OURS, 2.0),
    Target("(c) cascade, defaults", (sides.BEAM_CUT,), sides.OURS_CUT, 2.0),
    Target("(d) timm", (sides.TIMM, sides.TIMM_TUNED), sides.OURS, 1.0),
    Target("(d) Ray Data", (sides.RAY, sides.RAY_TUNED), sides.OURS, 1.0),
    Target("share of compute alone, resnet50", (sides.COMPUTE_HEAVY,), sides.OURS_HEAVY, 0.93),
    Target(
        "share of decoding alone, camera's images", (sides.DECODE_CAMERA,), sides.OURS_CAMERA, 0.93
    ),
    Target("share of compute alone, big network", (sides.COMPUTE,), sides.OURS, None),
    Target(
        "share of compute alone by hand, big network", (sides.COMPUTE_BY_HAND,), sides.OURS, None
    ),
    Target(
        "share of decoding, then compute, big",
        (sides.DECODE, sides.COMPUTE),
        sides.OURS,
        None,
        summed=True,
    ),
    Target(
        "share of decoding, then compute, smallest",
        (sides.DECODE_SMALLEST, sides.COMPUTE_SMALLEST),
        sides.OURS_SMALLEST,
        None,
        summed=True,
    ),
)
"""Decoding uses the cores that networks use, so without a GPU a run comes near one ceiling only
where the other costs next to nothing: a heavy network on the photographs, and images as cameras
make them for a light one. Elsewhere the two one after the other say what could be reached.
"""


@dataclass(frozen=True)
class Finding:
    """A target and the ratios of all turns; `whole` is the median over whole processes."""

    title: str
    theirs: str
    ours: str
    wanted: float | None
    ratios: tuple[float, ...]
    median: float
    whole: float

    @property
    def verdict(self) -> str:
        """Whether it is met."""
        if self.wanted is None:
            return ""
        return "yes" if self.median >= self.wanted else "no"


def findings(runs: Runs, predicted: float | None) -> list[Finding]:
    """Of all targets whose sides ran; `predicted` is the fitted policy's speed-up by its costs."""
    found = []
    for target in TARGETS:
        there = [side.name for side in target.theirs if side.name in runs]
        lacks = target.summed and len(there) < len(target.theirs)
        if not there or lacks or target.ours.name not in runs:
            continue
        if target.predicted and not predicted:
            continue
        found.append(_finding(target, runs, there, predicted))
    return found


def _finding(target: Target, runs: Runs, there: Sequence[str], predicted: float | None) -> Finding:
    theirs = there if target.summed else [fastest(runs, there)]
    share = predicted if target.predicted and predicted else 1.0
    each = [ratio / share for ratio in ratios(runs, theirs, target.ours.name)]
    whole = [ratio / share for ratio in ratios(runs, theirs, target.ours.name, "whole")]
    return Finding(
        title=target.title,
        theirs=" + ".join(theirs),
        ours=target.ours.name,
        wanted=target.wanted,
        ratios=tuple(each),
        median=statistics.median(each),
        whole=statistics.median(whole),
    )
