"""Many nights without drift, judged as a run judges them: how often is there an alarm, ever?"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny

from pipelines.promise import reality, table_of
from policy.alarm import ALPHA, Audits, verdict
from policy.bundle import Bundle, Evidence
from policy.reference import Reference
from transforms.watch import audits_of, seen_early

NIGHTS, SHARDS, AUDITS = 400, 200, 25


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A bundle whose reference is filled in for each night."""
    evidence = Evidence(
        method="search",
        metric="top1",
        objective="excess",
        promise="",
        certificate=None,
        data_digest="",
        seed=0,
        parts={},
        measured_on="test",
        full="big",
        exits={},
        cost=1.0,
        full_cost=2.0,
        regret=0.0,
        versions={},
    )
    return Bundle(tiny.POLICY, ("cat", "dog"), {}, evidence)


def night(
    bundle: Bundle, rng: np.random.Generator, n: int, rates: tuple[float, float]
) -> tuple[bool, bool]:
    """Whether workers that looked early, and whether the receipt, raised an alarm.

    Half of the images stop early; of those, the rates of the table and of the run disagree.
    """
    table = Reference(n, int(rng.binomial(rng.binomial(n, 0.5), 2 * rates[0])), {}, {})
    early = rng.binomial(AUDITS, 0.5, SHARDS)
    wrong = rng.binomial(early, 2 * rates[1])
    shards: dict[str, dict[str, Any]] = {
        f"{number:03d}": {"audited": AUDITS, "disagreed": int(d), "statuses": {"ok": AUDITS}}
        for number, d in enumerate(wrong)
    }
    known = replace(bundle, evidence=replace(bundle.evidence, reference=table))
    _, receipt = reality(known, shards)
    begun = [audits_of(found) for found in shards.values()]
    rng.shuffle(begun)
    return any(_early(table_of(table), begun, late) for late in (0, 8)), receipt.alarm


def _early(table: Audits, begun: list[Audits], late: int) -> bool:
    """Whether some look sees an alarm where those that disagree least are `late` all the time.

    As seen_early counts, at every number of shards begun, with one call for all of them.
    """
    seen, before = [], 0
    for n in range(1, len(begun) + 1):
        disagreed = sum(sorted(shard.disagreed for shard in begun[:n])[late:])
        seen.append(Audits(AUDITS, disagreed - before))
        before = disagreed
    last = seen_early(table, [Audits(AUDITS * (len(begun) - late), before)], [AUDITS] * late, 1.0)
    found = verdict(table, seen)
    assert found.evidence == pytest.approx(last.evidence)
    return found.alarm


def alarms(bundle: Bundle, seed: int, *of: Any) -> float:
    rng = np.random.default_rng(seed)
    return sum(any(night(bundle, rng, *of)) for _ in range(NIGHTS)) / NIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("n", [50, 5000])
def test_nights_without_drift_end_in_an_alarm_at_most_as_often_as_promised(
    bundle: Bundle, n: int, rate: float
) -> None:
    sampling = 2 * (ALPHA * (1 - ALPHA) / NIGHTS) ** 0.5
    assert alarms(bundle, 0, n, (rate, rate)) <= ALPHA + sampling


@pytest.mark.slow
def test_nights_at_twice_the_rate_end_in_an_alarm(bundle: Bundle) -> None:
    assert alarms(bundle, 1, 5000, (0.05, 0.1)) >= 0.95
