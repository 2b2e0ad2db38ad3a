"""The alarm's guarantee, by simulation: table and audits both random, looked at all the time."""

import numpy as np
import pytest

from policy.alarm import ALPHA, RUN_RISK, Audits, verdict
from policy.errors import InputError

NIGHTS = 600


def _night(rng: np.random.Generator, table_rate: float, run_rate: float, n: int) -> list[int]:
    """The numbers of audits at which a night's alarm first stood: none or one."""
    table = Audits(n, int(rng.binomial(n, table_rate)))
    shards = [Audits(20, int(d)) for d in rng.binomial(20, run_rate, 250)]
    if not verdict(table, shards).alarm:
        return []
    low, high = 0, len(shards)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if verdict(table, shards[:middle]).alarm else (middle, high)
    return [20 * high]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("n", [50, 5000])
def test_false_alarms_are_at_most_alpha_over_all_time(rate: float, n: int) -> None:
    rng = np.random.default_rng(0)
    alarms = sum(len(_night(rng, rate, rate, n)) for _ in range(NIGHTS))
    assert alarms / NIGHTS <= ALPHA + 2 * (ALPHA * (1 - ALPHA) / NIGHTS) ** 0.5


def test_twice_the_rate_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [at for _ in range(100) for at in _night(rng, 0.05, 0.1, 5000)]
    assert len(found) >= 95
    assert np.median(found) <= 600


def test_the_capital_depends_on_the_sums_alone_and_an_alarm_stays() -> None:
    table, bad, good = Audits(1000, 10), Audits(100, 50), Audits(10_000, 0)
    one, other = verdict(table, [bad, good]), verdict(table, [good, bad])
    assert one.evidence == other.evidence < 1 / RUN_RISK
    assert one.alarm
    assert not other.alarm


def test_the_first_bet_costs_nothing_on_average_at_the_bound() -> None:
    start = verdict(Audits(1000, 10), [])
    lost = verdict(Audits(1000, 10), [Audits(1, 1)]).evidence
    kept = verdict(Audits(1000, 10), [Audits(1, 0)]).evidence
    assert start.evidence == pytest.approx(1)
    assert start.bound * lost + (1 - start.bound) * kept == pytest.approx(1)


def test_a_table_without_images_never_alarms() -> None:
    assert not verdict(Audits(0, 0), [Audits(1000, 1000)]).alarm


def test_overwhelming_evidence_stays_a_finite_number() -> None:
    assert np.isfinite(verdict(Audits(1000, 0), [Audits(10**6, 10**6)]).evidence)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="3 of 2 audits disagreed"):
        Audits(2, 3)
