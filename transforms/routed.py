"""What comes out of the router: images with their answers, and what their audit found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policy.answers import Answers
from policy.rows import OK
from transforms.prepare import Prepared

Trail = tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """What the audit of one labelled image found.

    `full` is the full network's best class; None where it gave NaN or could not be run. `disagrees`
    is `policy.audit.disagrees`. `cost` is what the audit cost beyond the trail.
    """

    full: int | None
    disagrees: bool
    cost: float


@dataclass(frozen=True)
class Routed:
    """Images that left the network together: same trail, same cost per image.

    `answers` give the label, in the order of `items`: the last answer's, or the mean of the trail.
    With another `status` than OK, no decision was made, and `error` says why: the last answer was
    NaN or infinite, or the next one could not be got at all (`answers` is None then). `audits` has
    those of the images that were audited, by their number in `items`.
    """

    items: Sequence[Prepared]
    trail: Trail
    cost: float
    answers: Answers | None
    status: str = OK
    error: str | None = None
    audits: Mapping[int, Compared] = field(default_factory=dict)
