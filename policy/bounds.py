"""What n images prove about a mean regret: p-values and one-sided upper bounds.

Binomial chances are made of scipy.special alone: scipy.stats takes half a second to import, which
every command would pay.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, betaincinv, logit

from policy.errors import InputError
from policy.losses import Objective

Bound = Literal["exact binomial", "exact trinomial"]

BOUNDS: dict[Objective, Bound] = {"excess": "exact binomial", "loss": "exact trinomial"}
"""The test that each objective's regret is put to."""

LARGEST_CONFIDENCE = 0.999

_NUISANCE = 1e-4  # risk spent on bounding how often the labels differ: a tenth of 1 - 0.999
_HALF = 0.5
_HALVINGS = 40  # of an interval no longer than 2, so exact to 2e-12
_TAIL = 10  # standard deviations; what lies beyond them is added, not dropped


def p_value(regret: NDArray[np.float64], max_loss: float, objective: Objective) -> float:
    """How likely a mean of regret [n] this low is where the true mean is `max_loss` or more.

    Valid at every n: over independent images, it is at most delta with probability at most delta.
    `max_loss` is a fraction. Raises InputError on a regret that the objective does not know (see
    losses.regret).
    """
    lost, gained = _counts(regret, objective)
    if objective == "excess":
        return binomial(lost, len(regret), max_loss)
    return trinomial(lost, gained, len(regret), max_loss)


def upper_bound(regret: NDArray[np.float64], objective: Objective, confidence: float) -> float:
    """The upper end of the one-sided confidence interval for the mean of regret [n].

    It is p_value's test inverted: every mean above it is refuted at 1 - confidence.
    """
    lost, gained = _counts(regret, objective)
    n, risk = len(regret), 1 - confidence
    if objective == "excess":
        return clopper_pearson(lost, n, risk)
    low, high = (lost - gained) / max(n, 1), 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if trinomial(lost, gained, n, middle) <= risk:
            high = middle
        else:
            low = middle
    return high


def binomial(lost: int, n: int, max_loss: float) -> float:
    """P(at most `lost` of n) where each is lost with probability `max_loss`; exact."""
    return float(_at_most(lost, n, max_loss))


def at_least(lost: int, n: int, max_loss: float) -> float:
    """P(at least `lost` of n) where each is lost with probability `max_loss`; exact."""
    if not 0 < lost <= n:
        return float(lost <= 0)
    return float(betainc(lost, n - lost + 1, max_loss))


def trinomial(lost: int, gained: int, n: int, max_loss: float) -> float:
    """P(losses - gains as low as found) at the worst distribution of mean `max_loss`.

    Regrets of -1, 0 and 1 have a second unknown, the share d of images that are not 0. It is first
    bounded from above, at a risk of 1e-4 that is added to the p-value (Berger & Boos 1994); below
    that bound the worst d is the bound itself. Proof: for a fixed mean, the derivative of P(S <= s)
    by d is n/2 (f(s + 1) - f(s)), f the probabilities of the sum of n - 1 regrets. For d <= 1/2 its
    generating function has real roots only, so the sum is one of independent Bernoulli variables:
    f rises up to its mode, which is within 1 of the mean (Darroch 1964). So the derivative is not
    negative as long as s + 1 <= floor((n - 1) max_loss); nearer than that the answer is 1. What
    concerns d > 1/2 is left to Hoeffding-Bentkus.

    Where more than a few regrets are not 0, that is tighter than one binomial each for losses and
    gains, than betting (Waudby-Smith & Ramdas 2023), and far tighter than Hoeffding-Bentkus, which
    does not know that most are 0 (benchmarks/certificate.py).
    """
    found = lost - gained
    if n == 0 or found + 1 > math.floor((n - 1) * max_loss):
        return 1.0
    differing = clopper_pearson(lost + gained, n, _NUISANCE)
    if differing < max_loss:
        return _NUISANCE
    worst = _sum_at_most(found, n, max_loss, max(min(differing, _HALF), abs(max_loss)))
    if differing > _HALF:
        worst = max(worst, hoeffding_bentkus(found / n, n, max_loss))
    return min(worst + _NUISANCE, 1.0)


def hoeffding_bentkus(mean: float, n: int, max_loss: float) -> float:
    """The p-value of Bates et al. (2021), section 3.1.1, for n regrets anywhere in [-1, 1]."""
    found, limit = (1 + mean) / 2, (1 + max_loss) / 2
    if found >= limit:
        return 1.0
    divergence = _plogp(found, limit) + _plogp(1 - found, 1 - limit)
    bentkus = math.e * float(_at_most(math.ceil(n * found), n, limit))
    return min(math.exp(-n * divergence), bentkus, 1.0)


def _plogp(p: float, q: float) -> float:
    """P log(p / q), for q = 0 too."""
    if p == 0:
        return 0.0
    return p * math.log(p / q) if q > 0 else math.inf


def _sum_at_most(found: int, n: int, mean: float, differing: float) -> float:
    """P(losses - gains <= found) of n images of which a share `differing` is lost or gained."""
    lost, gained = (differing + mean) / 2, max(differing - mean, 0.0) / 2
    reach = _TAIL * math.sqrt(n * gained) + _TAIL
    first, last = max(math.floor(n * gained - reach), 0), min(math.ceil(n * gained + reach), n)
    gains = np.arange(first, last + 1)
    losses_at_most = _at_most(found + gains, n - gains, lost / (1 - gained))
    outside = float(_at_most(first - 1, n, gained)) + at_least(last + 1, n, gained)
    inside = float((_relative(gains, n, gained) * losses_at_most).sum())
    return inside * (1 - outside) + outside


def _at_most(k: int | NDArray[np.int_], n: int | NDArray[np.int_], p: float) -> NDArray[np.float64]:
    """P(at most k of n), each with probability p, for any k and n >= 0."""
    k, left = np.asarray(k), np.asarray(n) - k
    inside = betaincc(np.maximum(k, 0) + 1, np.maximum(left, 1), p)
    return np.where(k < 0, 0.0, np.where(left <= 0, 1.0, inside))


def _relative(k: NDArray[np.int_], n: int, p: float) -> NDArray[np.float64]:
    """P(k of n) for neighbouring k [m], each with probability p < 1, in proportion: their sum is 1.

    From ratios of neighbours, as logarithms of factorials would lose digits where n is large.
    """
    ratios = np.log((n - k[:-1]) / (k[:-1] + 1)) + logit(p)
    logs = np.concatenate([[0.0], np.cumsum(ratios)])
    unscaled = np.exp(logs - logs.max())
    chances: NDArray[np.float64] = unscaled / unscaled.sum()
    return chances


def clopper_pearson(hits: int, n: int, risk: float) -> float:
    """The upper bound of Clopper and Pearson (1934) on a probability, from `hits` of n."""
    return 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 1 - risk))


def _counts(regret: NDArray[np.float64], objective: Objective) -> tuple[int, int]:
    """How many images are lost (1) and gained (-1)."""
    known = (0, 1) if objective == "excess" else (-1, 0, 1)
    strange = regret[~np.isin(regret, known)]
    if strange.size:
        raise InputError(
            f"{strange.size} of {len(regret)} regrets are none of {known}, the first "
            f"{strange[0]:g}; use losses.regret with the objective {objective!r}"
        )
    return int((regret == 1).sum()), int((regret == -1).sum())
