"""What a policy's report says: plain numbers, all measured on images that fitted nothing.

Shares, errors and losses are fractions in [0, 1] (a loss may be negative); costs are means per
image in `unit`. Names of networks, classes and keys are as the user wrote them, not escaped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy.certify import Certificate
from policy.evaluate import Usage
from policy.losses import Metric, Objective

LOSSES = (0.0, 0.005, 0.01, 0.02, 0.05)
"""The losses at which speed-ups are read off."""

METRICS: Mapping[Metric, str] = {"top1": "top-1", "top5": "top-5"}
"""As the report writes them."""

TEST_CONFIDENCE = 0.95
"""Of the interval around the loss on the test images."""


@dataclass(frozen=True)
class Single:
    """One answer for every image; `cost` is that of getting it alone."""

    name: str
    cost: float
    error: float


@dataclass(frozen=True)
class Curve:
    """A method's policies as (mean cost, error), by rising cost.

    `frontier`: those that no cheaper one equals. `kind` says what a reader may conclude: method
    (can be deployed), baseline (what it must beat), bound (cannot be deployed: an oracle).
    """

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]

    @property
    def frontier(self) -> tuple[tuple[float, float], ...]:
        """The points with less error than all cheaper ones."""
        kept: list[tuple[float, float]] = []
        for cost, error in self.points:
            if not kept or error < kept[-1][1]:
                kept.append((cost, error))
        return tuple(kept)


@dataclass(frozen=True)
class SpeedUps:
    """A row of Table 1: cost of the full network over that at each loss of LOSSES.

    None where the policy costs nothing.
    """

    name: str
    kind: str
    at: tuple[float | None, ...]


@dataclass(frozen=True)
class UsageAt:
    """How one policy used the answers (Figure 5 of Bolukbasi et al. 2017); `name` says which."""

    name: str
    cost: float
    error: float
    usage: Mapping[str, Usage]


@dataclass(frozen=True)
class BudgetRow:
    """A policy fitted to a budget: what was asked and what came of it; `exits` by answer."""

    method: str
    asked: float
    cost: float
    error: float
    exits: Mapping[str, float]


@dataclass(frozen=True)
class Pattern:
    """Which answers are right (True) on the same image, and the share of such images."""

    right: tuple[bool, ...]
    share: float


@dataclass(frozen=True)
class ErrorsOf:
    """An answer's errors beside those of dearer answers; all are shares of all images.

    later_right: it is wrong, but some dearer answer is right. beats_full: it is right where the
    full network is wrong.
    """

    name: str
    wrong: float
    later_right: float
    beats_full: float


@dataclass(frozen=True)
class Overlap:
    """How far the answers err on the same images (Figure 6); `answers` by rising cost.

    `patterns` are the commonest, by falling share; `other` is the share of all further ones.
    """

    answers: tuple[str, ...]
    all_right: float
    all_wrong: float
    patterns: tuple[Pattern, ...]
    other: float
    rows: tuple[ErrorsOf, ...]


@dataclass(frozen=True)
class TrailRow:
    """The images on one trail: n of them, cost of each, and how they fared.

    `excess`: share of them that the full network gets right and the policy wrong.
    """

    trail: tuple[str, ...]
    n: int
    cost: float
    error: float
    full_error: float
    excess: float


@dataclass(frozen=True)
class ClassRow:
    """A class with n images, `lost` of which only the full network gets right."""

    name: str
    n: int
    lost: int
    error: float
    full_error: float


@dataclass(frozen=True)
class Mistake:
    """An image that the full network gets right and the policy wrong.

    `given` is the best class of the answer that labelled it, `confidence` its probability.
    """

    key: str
    label: str
    given: str
    trail: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class Mistakes:
    """Where the policy errs and the full network does not: `lost` images in all."""

    lost: int
    trails: tuple[TrailRow, ...]
    classes: tuple[ClassRow, ...]
    examples: tuple[Mistake, ...]


@dataclass(frozen=True)
class Provenance:
    """Where the policy comes from; `parts` counts the images of each part of the table.

    `untouched` says whether the images measured on helped neither to fit nor to choose.
    """

    digest: str
    method: str
    seed: int
    parts: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    untouched: bool = True


@dataclass(frozen=True)
class Summary:
    """The chosen policy on the n test images, beside the full network.

    `lost` is its mean regret by `objective`, `interval` where that lies at TEST_CONFIDENCE.
    """

    n: int
    unit: str
    metric: Metric
    objective: Objective
    full: str
    full_cost: float
    full_error: float
    cost: float
    speedup: float | None
    error: float
    lost: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Content:
    """All that the report says; `asked` is the promise wanted, `certificate` what became of it."""

    summary: Summary
    asked: str
    certificate: Certificate | None
    provenance: Provenance
    singles: tuple[Single, ...]
    curves: tuple[Curve, ...]
    speedups: tuple[SpeedUps, ...]
    usage: tuple[UsageAt, ...]
    budgets: tuple[BudgetRow, ...]
    overlap: Overlap
    mistakes: Mistakes
