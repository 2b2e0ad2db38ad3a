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
false alarms, ever, at most ALPHA. Nights of one policy, one after the other, are one such run: each
begins with the sums of those before it, as both orders go by nights first.
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


NO_AUDITS = Audits(0, 0)


@dataclass(frozen=True)
class Verdict:
    """`bound` is q; `evidence` the capital now, `highest` the most it was after any shard."""

    total: Audits
    bound: float
    evidence: float
    highest: float

    @property
    def alarm(self) -> bool:
        """Whether the promise is refuted; once True, more shards do not take it back."""
        return self.highest >= THRESHOLD


def verdict(table: Audits, shards: Sequence[Audits]) -> Verdict:
    """The test after these shards, which must be in an order fixed beforehand: by name."""
    bound = clopper_pearson(table.disagreed, table.audited, TABLE_RISK)
    audited = np.cumsum([0, *(shard.audited for shard in shards)])
    disagreed = np.cumsum([0, *(shard.disagreed for shard in shards)])
    capital = _capital(audited, disagreed, bound)
    total = Audits(int(audited[-1]), int(disagreed[-1]))
    return Verdict(total, bound, float(capital[-1]), float(capital.max()))


def _capital(
    audited: NDArray[np.intp], disagreed: NDArray[np.intp], bound: float
) -> NDArray[np.float64]:
    """[n] the mean capital over the alternatives; 1 where the bound refutes nothing."""
    if bound >= 1:
        return np.ones(len(audited))
    odds = _ODDS_RATIOS * bound / (1 - bound)
    rates = odds / (1 + odds)
    won, lost = disagreed[:, None], (audited - disagreed)[:, None]
    logs = won * np.log(rates / bound) + lost * (np.log1p(-rates) - math.log1p(-bound))
    mean = logsumexp(logs, axis=1) - math.log(len(rates))
    finite: NDArray[np.float64] = np.exp(np.minimum(mean, _LARGEST))
    return finite
