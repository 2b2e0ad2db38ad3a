"""The alarm's guarantee, by simulation: table and audits both random, looked at all the time."""

import numpy as np
import pytest

from policy.alarm import ALPHA, RUN_RISK, TABLE_RISK, Audits, verdict
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


def first_alarm(rng: np.random.Generator, table: Audits, rates: list[float]) -> int | None:
    """The first of many nights, of 100 audits each, in which the alarm is raised."""
    nights = [Audits(100, int(d)) for d in rng.binomial(100, rates)]
    for number in range(len(nights)):
        half = nights[number].disagreed // 2
        shards = [Audits(50, half), Audits(50, nights[number].disagreed - half)]
        if verdict(table, shards, tuple(nights[:number])).alarm:
            return number
    return None


def test_false_alarms_over_all_nights_of_a_policy_are_at_most_the_risk_of_one_run() -> None:
    rng, count = np.random.default_rng(2), 150
    found = [
        first_alarm(rng, Audits(2000, int(rng.binomial(2000, 0.05))), [0.05] * 40)
        for _ in range(count)
    ]
    most = TABLE_RISK + RUN_RISK
    alarms = sum(night is not None for night in found)
    assert alarms / count <= most + 2 * (most * (1 - most) / count) ** 0.5


def test_a_rate_at_the_bound_itself_is_refuted_with_no_more_than_its_risk() -> None:
    rng, count = np.random.default_rng(3), 150
    table = Audits(2000, 100)
    bound = verdict(table, []).bound
    alarms = sum(first_alarm(rng, table, [bound] * 40) is not None for _ in range(count))
    assert alarms / count <= RUN_RISK + 2 * (RUN_RISK * (1 - RUN_RISK) / count) ** 0.5


def test_a_change_after_many_good_nights_is_found_soon() -> None:
    rng, table, good = np.random.default_rng(4), Audits(5000, 250), 30
    found = [first_alarm(rng, table, [0.05] * good + [0.15] * 10) for _ in range(50)]
    late = [night - good for night in found if night is not None and night >= good]
    assert len(late) >= 48
    assert np.median(late) <= 4
    # one bet over all nights has lost too much until then
    total = Audits(100 * (good + 4), round(100 * (good * 0.05 + 4 * 0.15)))
    assert not verdict(table, [total]).alarm


def test_what_is_slightly_worse_from_the_first_night_is_found_by_many() -> None:
    rng, table = np.random.default_rng(5), Audits(5000, 250)
    found = [first_alarm(rng, table, [0.08] * 60) for _ in range(50)]
    assert sum(night is not None for night in found) >= 48
    assert np.median([night for night in found if night is not None]) > 3


def test_the_first_of_many_nights_begins_with_the_capital_of_a_run() -> None:
    table = Audits(1000, 10)
    start = verdict(table, [], ())
    lost, kept = (verdict(table, [Audits(1, d)], ()).evidence for d in (1, 0))
    assert start.evidence == pytest.approx(1)
    assert start.bound * lost + (1 - start.bound) * kept == pytest.approx(1)
    later = verdict(table, [], (Audits(10, 0), Audits(10, 0)))
    lost, kept = (
        verdict(table, [Audits(1, d)], (Audits(10, 0), Audits(10, 0))).evidence for d in (1, 0)
    )
    assert later.bound * lost + (1 - later.bound) * kept == pytest.approx(later.evidence)
