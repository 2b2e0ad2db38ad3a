"""The guarantee of the certificate itself: many simulated fits, violations counted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from populations import BOTH, GRAPH, population, thresholds

from policy import certify as certifying
from policy.answers import Answers
from policy.certify import certify, safe_to_bold
from policy.evaluate import Point, measure, realised
from policy.fit_dag import propose
from policy.losses import Objective
from policy.problem import Problem
from policy.rules import Policy

FITS = 1000


@dataclass(frozen=True)
class Known:
    """A population on which the truth about every policy is known: cost and regret, [images]."""

    whole: Problem
    cost: dict[Policy, np.ndarray]
    regret: dict[Policy, np.ndarray]

    def realised(self, policy: Policy, part: Problem) -> tuple[np.ndarray, np.ndarray]:
        """policy.evaluate.realised, looked up: labels are the numbers of the images drawn."""
        return self.cost[policy][part.labels], self.regret[policy][part.labels]

    def draw(self, n: int, rng: np.random.Generator) -> Problem:
        rows = rng.integers(0, len(self.whole), n).astype(np.int32)
        nothing = Answers(np.zeros((n, 1), np.int32), *np.zeros((2, n), np.float32))
        outputs = dict.fromkeys(GRAPH.answers, nothing)
        return Problem(GRAPH, [""] * n, rows, outputs, "top1", self.whole.objective)

    def order(self, part: Problem) -> list[Policy]:
        found = {policy: self.realised(policy, part) for policy in self.cost}
        points = [Point(p, float(c.mean()), float(r.mean())) for p, (c, r) in found.items()]
        return [policy for policy in safe_to_bold(points) if isinstance(policy, Policy)]

    def loss(self, policy: Policy) -> float:
        return float(self.regret[policy].mean()) if policy in self.regret else 0.0

    def saving(self, policy: Policy) -> float:
        return 9 - float(self.cost[policy].mean()) if policy in self.cost else 0.0

    def oracle_saving(self, max_loss: float) -> float:
        return max(self.saving(policy) for policy in self.cost if self.loss(policy) <= max_loss)


def known(objective: Objective) -> Known:
    whole, policies = population(objective), thresholds()
    found = [realised(policy, whole) for policy in policies]
    return Known(
        whole,
        {policy: cost for policy, (cost, _) in zip(policies, found, strict=True)},
        {policy: regret for policy, (_, regret) in zip(policies, found, strict=True)},
    )


Fit = Callable[[np.random.Generator], tuple[Sequence[Policy], Problem]]


def simulate_fits(
    on: Known, fit: Fit, max_loss: float, risk: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, float]:
    """The share of fits whose policy truly loses too much, and the mean share of saving kept."""
    tested = certifying.p_value
    seen: dict[tuple[int, int, int], float] = {}

    def remembered(regret: np.ndarray, limit: float, objective: Objective) -> float:
        counts = (int((regret > 0).sum()), int((regret < 0).sum()), len(regret))
        if counts not in seen:
            seen[counts] = tested(regret, limit, objective)
        return seen[counts]

    monkeypatch.setattr(certifying, "p_value", remembered)
    monkeypatch.setattr(certifying, "realised", on.realised)
    monkeypatch.setattr(certifying, "upper_bound", lambda *_: 0.0)  # decides nothing, takes long
    rng = np.random.default_rng(11)
    kept = [certify(*fit(rng), max_loss, 1 - risk)[0] for _ in range(FITS)]
    policies = [policy for policy in kept if isinstance(policy, Policy)]
    violations = sum(on.loss(policy) > max_loss for policy in policies)
    saved = sum(on.saving(policy) for policy in policies) / FITS
    return violations / FITS, saved / on.oracle_saving(max_loss)


def limit(risk: float) -> float:
    """The share of violations that two standard errors allow."""
    return risk + 2 * math.sqrt(risk * (1 - risk) / FITS)


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize(
    ("n", "max_loss", "power"),
    [(150, 0.06, 0.3), pytest.param(3000, 0.03, 0.75, marks=pytest.mark.slow)],
)
def test_of_a_thousand_fits_no_more_break_the_promise_than_it_allows(
    objective: Objective, n: int, max_loss: float, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = known(objective)

    def fit(rng: np.random.Generator) -> tuple[Sequence[Policy], Problem]:
        return on.order(on.draw(n, rng)), on.draw(n, rng)

    violations, kept = simulate_fits(on, fit, max_loss, 0.1, monkeypatch)
    assert violations <= limit(0.1)
    assert kept >= power


@pytest.mark.slow
@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize("order", ["any", "bold first"])
def test_no_order_breaks_the_promise(
    objective: Objective, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = known(objective)
    proposed = list(on.cost)

    def fit(rng: np.random.Generator) -> tuple[Sequence[Policy], Problem]:
        some = [proposed[number] for number in rng.permutation(len(proposed))]
        return some if order == "any" else proposed[::-1], on.draw(200, rng)

    violations, _ = simulate_fits(on, fit, 0.05, 0.1, monkeypatch)
    assert violations <= limit(0.1)


@pytest.mark.parametrize("objective", BOTH)
@pytest.mark.parametrize(("n", "least"), [(50, 0.0), (1000, 0.04)])
def test_policies_that_lose_only_just_too_much_pass_at_the_risk_and_no_more(
    objective: Objective, n: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = known(objective)
    bold = [policy for policy in on.cost if on.loss(policy) > 0.06]
    max_loss = min(on.loss(policy) for policy in bold) - 1e-9

    def fit(rng: np.random.Generator) -> tuple[Sequence[Policy], Problem]:
        return bold, on.draw(n, rng)

    violations, _ = simulate_fits(on, fit, max_loss, 0.1, monkeypatch)
    assert least <= violations <= limit(0.1)


@pytest.mark.parametrize("objective", BOTH)
def test_the_simulation_catches_a_certificate_that_only_measures(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = known(objective)
    monkeypatch.setattr(
        certifying, "p_value", lambda regret, max_loss, _: float(regret.mean() > max_loss)
    )

    def fit(rng: np.random.Generator) -> tuple[Sequence[Policy], Problem]:
        return on.order(on.draw(200, rng)), on.draw(200, rng)

    violations, _ = simulate_fits(on, fit, 0.06, 0.1, monkeypatch)
    assert violations > 2 * limit(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("objective", BOTH)
def test_fitted_policies_keep_the_promise_from_end_to_end(objective: Objective) -> None:
    rng = np.random.default_rng(3)
    whole, max_loss, risk = population(objective), 0.05, 0.1
    violations, certified, fits = 0, 0, 25
    for _ in range(fits):
        fitting, choosing = (whole.take(rng.integers(0, len(whole), 300)) for _ in range(2))
        policies = safe_to_bold(measure(propose(fitting), choosing))
        for _ in range(FITS // fits):
            seen = whole.take(rng.integers(0, len(whole), 400))
            kept, found = certify(policies, seen, max_loss, 1 - risk)
            certified += found.passed
            violations += float(realised(kept, whole)[1].mean()) > max_loss
    assert violations / FITS <= limit(risk)
    assert certified / FITS > 0.9
