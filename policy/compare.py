"""Whether a new policy is better than the one in use, on images that neither has seen.

At the same promise, it is if both hold on these images, each at its share of the risk, which is
1 - confidence:

- the new one keeps the promise: its loss is proved to be at most max_loss (bounds.p_value), and
- it is cheaper than the old one by more than chance (`cheaper`, half of the risk), or the old one
  is refuted to keep the promise (`broken`, the other half).

So a policy that breaks the promise becomes better with probability at most 1 - confidence, and so
does one that keeps it, where the old one keeps it too and costs no more. Each comparison has that
risk anew. The images are independent draws that are used to fit, choose or certify neither.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from policy.bounds import at_least, p_value
from policy.errors import InputError
from policy.losses import Metric, Objective
from policy.soundness import images_needed

_BETS = np.geomspace(0.005, 0.99, 32)  # shares of the capital; 1 could lose all of it at once


@dataclass(frozen=True)
class Promise:
    """What both are asked for: a mean regret (losses.regret) of at most `max_loss`, how surely."""

    metric: Metric
    objective: Objective
    max_loss: float
    confidence: float

    @property
    def text(self) -> str:
        """For people."""
        sure = f"{self.confidence * 100:g}% confidence"
        return f"{self.metric} {self.objective} at most {self.max_loss:g} at {sure}"


@dataclass(frozen=True)
class Comparison:
    """What `n` images say of both; costs are means per image, losses mean regrets.

    `p_keeps`: how likely a loss so low is if the new policy breaks the promise; `p_cheaper`: so
    much less cost if it costs no less; `p_broken`: so high a loss of the old one if it keeps the
    promise. `reason` says why it is `better`, or why not.
    """

    n: int
    new_cost: float
    old_cost: float
    new_loss: float
    old_loss: float
    p_keeps: float
    p_cheaper: float
    p_broken: float
    better: bool
    reason: str


def compare(
    costs: tuple[NDArray[np.float64], NDArray[np.float64]],
    regrets: tuple[NDArray[np.float64], NDArray[np.float64]],
    dearest: float,
    promise: Promise,
) -> Comparison:
    """Compare the new policy with the old one: `costs` and `regrets` are [n] of each, new first.

    `dearest` is the most that either can cost for an image. Raises InputError without any image.
    """
    new, old = regrets
    if not len(new):
        raise InputError("no image to compare two policies on; label more, or raise --test-share")
    risk, max_loss = 1 - promise.confidence, promise.max_loss
    p_keeps = p_value(new, max_loss, promise.objective)
    p_cheaper = cheaper(costs[1] - costs[0], dearest)
    p_broken = broken(old, max_loss, promise.objective)
    said = Comparison(
        n=len(new),
        new_cost=float(costs[0].mean()),
        old_cost=float(costs[1].mean()),
        new_loss=float(new.mean()),
        old_loss=float(old.mean()),
        p_keeps=p_keeps,
        p_cheaper=p_cheaper,
        p_broken=p_broken,
        better=p_keeps <= risk and min(p_cheaper, p_broken) <= risk / 2,
        reason="",
    )
    return Comparison(**(said.__dict__ | {"reason": _reason(said, promise)}))


def cheaper(saved: NDArray[np.float64], dearest: float) -> float:
    """How likely so much is saved, [n] within +-dearest, where the true mean is 0 or less.

    Each image is a bet of a share of the capital on its saving; under a mean of at most 0 the
    expected capital never grows, and neither does the mean over several shares, so one over it is a
    p-value, by Markov's inequality, at every n and for every distribution (Waudby-Smith & Ramdas
    2024, section 4; Orabona & Jun 2024). The order of the images does not matter.
    """
    if dearest <= 0:
        return 1.0
    logs = np.log1p(_BETS[:, None] * (saved / dearest)[None, :]).sum(axis=1)
    capital = float(logsumexp(logs)) - float(np.log(len(_BETS)))
    return float(np.exp(-max(capital, 0.0)))


def broken(regret: NDArray[np.float64], max_loss: float, objective: Objective) -> float:
    """How likely a mean of regret [n] so high is where the true mean is at most `max_loss`.

    Exact for excess; for loss by the bets of `cheaper`.
    """
    if objective == "excess":
        return at_least(int(regret.sum()), len(regret), max_loss)
    return cheaper(regret - max_loss, 1 + max_loss)


def _reason(found: Comparison, promise: Promise) -> str:
    """Why it is better, or why not, with the numbers."""
    risk = 1 - promise.confidence
    where = f"on {found.n} new held-out images"
    costs = f"{found.new_cost:.4g} against {found.old_cost:.4g} per image"
    losses = f"loses {found.new_loss:.2%}, the one in use {found.old_loss:.2%}"
    if found.p_keeps > risk:
        least = images_needed(promise.objective, promise.max_loss, promise.confidence)
        if least is not None and found.n < least:
            return (
                f"{found.n} new held-out images are too few to prove {promise.text}: that takes "
                f"at least {least}; label more"
            )
        return (
            f"{where} it {losses}, which does not prove {promise.text} (p = {found.p_keeps:.3g}, "
            f"wanted at most {risk:.3g})"
        )
    if found.p_cheaper <= risk / 2:
        return (
            f"{where} it keeps {promise.text} and costs {costs}, less by more than chance "
            f"(p = {found.p_cheaper:.3g}); it {losses}"
        )
    if found.p_broken <= risk / 2:
        return (
            f"{where} it keeps {promise.text}, and the one in use does not (p = "
            f"{found.p_broken:.3g}): it {losses}; it costs {costs}"
        )
    how = "not less" if found.new_cost >= found.old_cost else "no less than chance explains"
    return (
        f"{where} both may keep {promise.text}, and it costs {costs}: {how} "
        f"(p = {found.p_cheaper:.3g}, wanted at most {risk / 2:.3g}); it {losses}"
    )
