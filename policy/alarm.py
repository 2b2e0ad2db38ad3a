"""The alarm: an any-time-valid test that early exits disagree no more than the table promised.

The table's rate is itself an estimate, so it is replaced by its upper confidence bound q, which
fails with probability TABLE_RISK. Against "the rate is at most q" we bet: for an alternative a > q
each audit multiplies the capital by a/q if it disagrees and by (1-a)/(1-q) if not. Under any rate
up to q the expected factor is at most 1, so the capital is a test supermartingale, and so is the
mean over alternatives (Waudby-Smith & Ramdas 2024, section 4). By Ville's inequality it ever
reaches 1/RUN_RISK with probability at most RUN_RISK.

The capital depends on the sums of audits and disagreements alone, so workers' evidence is merged
by adding counts. That holds for any one order of the shards that is chosen without looking at the
disagreements. A run looks along two: the receipt goes by their names, workers that look early go by
which shard was begun first (transforms/watch.py). Each has RUN_RISK. Together with the table's:
false alarms, ever, at most ALPHA.

Nights that one policy labels, one after the other, are one such run that never ends: both orders go
by nights first. Images may change after many good nights, whose bets are lost by then, so one bet
begins in every night, with 1 / (j (j + 1)) of the capital for the j-th; what is for nights to come
is kept. A sum of test supermartingales is one, so the risk stays RUN_RISK over all nights of a
policy. (Bets that begin later, without the weights, are the e-detector of Shin, Ramdas & Rinaldo
2022; it bounds how often, not whether ever, an alarm is false.) A change in the j-th night needs
j (j + 1) times the evidence: in the thirtieth, with a rate of 10 % where 5 % are promised, some 440
audits more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from policy.bounds import clopper_pearson
from policy.errors import InputError

ALPHA = 0.05
TABLE_RISK = 0.01
RUN_RISK = (ALPHA - TABLE_RISK) / 2
"""Of each of the two orders that a run is looked at in."""

THRESHOLD = 1 / RUN_RISK
"""The capital at which the alarm is raised."""

_ODDS_RATIOS = np.geomspace(1.1, 100, 32)  # alternatives, as odds against the bound's odds

_LARGEST = 700.0  # of the capital's logarithm: exp of more is no float


@dataclass(frozen=True)
class Audits:
    """How many images were compared with the full network, and how many disagreed (audit.py)."""

    audited: int
    disagreed: int

    def __post_init__(self) -> None:
        """Refuse counts that no audit can give."""
        if not 0 <= self.disagreed <= self.audited:
            raise InputError(
                f"{self.disagreed} of {self.audited} audits disagreed; wanted 0 <= disagreed <= "
                "audited; the statistics were not written by this program"
            )


Nights = tuple[Audits, ...] | None
"""What earlier nights saw of the same policy, oldest first; None for a run that stands alone."""


@dataclass(frozen=True)
class Verdict:
    """`bound` is q; `evidence` the capital now, `highest` the most it was after any shard.

    `total` is of these shards, and of the nights before that take part in the bet that has gained
    most: `nights` with this one.
    """

    total: Audits
    bound: float
    evidence: float
    highest: float
    nights: int = 1

    @property
    def alarm(self) -> bool:
        """Whether the promise is refuted; once True, more shards do not take it back."""
        return self.highest >= THRESHOLD


def verdict(table: Audits, shards: Sequence[Audits], nights: Nights = None) -> Verdict:
    """The test after these shards, which must be in an order fixed beforehand: by name."""
    bound = clopper_pearson(table.disagreed, table.audited, TABLE_RISK)
    begun = _begun((*(nights or ()), Audits(0, 0)))
    audited = np.cumsum([0, *(shard.audited for shard in shards)]) + begun[0][:, None]
    disagreed = np.cumsum([0, *(shard.disagreed for shard in shards)]) + begun[1][:, None]
    bets = _capital(audited, disagreed, bound)
    capital, best = bets[0], 0
    if nights is not None:
        number = np.arange(1, len(bets) + 1)
        bets /= (number * (number + 1))[:, None]
        capital = bets.sum(axis=0) + 1 / (len(bets) + 1)
        best = int(bets[:, capital.argmax()].argmax())
    return Verdict(
        total=Audits(int(audited[best, -1]), int(disagreed[best, -1])),
        bound=bound,
        evidence=float(capital[-1]),
        highest=float(capital.max()),
        nights=len(bets) - best,
    )


def _begun(nights: Sequence[Audits]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """[nights] audits and disagreements since each night began."""
    audited = np.cumsum([night.audited for night in reversed(nights)])[::-1]
    disagreed = np.cumsum([night.disagreed for night in reversed(nights)])[::-1]
    return audited, disagreed


def _capital(
    audited: NDArray[np.intp], disagreed: NDArray[np.intp], bound: float
) -> NDArray[np.float64]:
    """The mean capital over the alternatives for each of these sums, [any shape].

    It is 1 where the bound refutes nothing.
    """
    if bound >= 1:
        return np.ones(audited.shape)
    odds = _ODDS_RATIOS * bound / (1 - bound)
    rates = odds / (1 + odds)
    won, lost = disagreed[..., None], (audited - disagreed)[..., None]
    logs = won * np.log(rates / bound) + lost * (np.log1p(-rates) - math.log1p(-bound))
    mean = logsumexp(logs, axis=-1) - math.log(len(rates))
    finite: NDArray[np.float64] = np.exp(np.minimum(mean, _LARGEST))
    return finite
