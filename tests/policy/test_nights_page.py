"""The page of the last thirty nights: all of them, nothing that runs, every text escaped."""

import re
from dataclasses import replace

import numpy as np
import pytest

from policy.nights import History, NightRecord, exit_code_of
from policy.nights_page import NIGHTS, headline, render

NIGHT = NightRecord(
    night="0001-2026-11-01",
    began="2026-11-01T02:30:00+00:00",
    seconds=100.0,
    exit_code=0,
    message="done",
    policy="d8824ac33983cca5",
    policy_version=1,
    new=3,
    records=3000,
    labelled=2990,
    rejected=10,
    cost=0.29,
    full_cost=0.92,
    unit="ms",
    audited=30,
    disagreed=1,
    bound=0.06,
    evidence=0.8,
)


def month(count: int) -> list[NightRecord]:
    rng = np.random.default_rng(0)
    return [
        replace(
            NIGHT,
            night=f"{number:04d}-2026-11-{number % 30 + 1:02d}",
            began=f"2026-11-{number % 30 + 1:02d}T02:30:00+00:00",
            records=int(rng.integers(2000, 4000)),
            cost=float(rng.uniform(0.2, 0.4)),
            disagreed=int(rng.integers(0, 3)),
            evidence=float(np.exp(rng.normal(-1, 1))),
        )
        for number in range(count)
    ]


def test_a_page_shows_the_newest_thirty_records_newest_first() -> None:
    page = render(month(45))
    shown = re.findall(r'<td class="text">(\d{4})</td>', page)
    assert shown == [f"{number:04d}" for number in range(44, 14, -1)]
    assert len(shown) == NIGHTS
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)  # nothing that lies elsewhere
    assert page.count("<svg") == 3
    assert page == render(month(45))


def test_what_is_said_is_escaped() -> None:
    page = render([replace(NIGHT, exit_code=2, message="<b>no & \udc80</b>", unit="<i>")])
    assert "&lt;b&gt;no &amp; ?&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "2026-11-01: 3 shards, 2,990 images labelled"),
        ({"new": 0, "message": "nothing to do"}, "2026-11-01: nothing to do"),
        ({"exit_code": 6}, "2026-11-01: alarm (exit 6)"),
        ({"exit_code": 9}, "2026-11-01: failed (exit 9)"),
    ],
)
def test_the_headline_says_how_the_last_night_ended(changes: dict[str, object], line: str) -> None:
    assert headline(replace(NIGHT, **changes)) == line
    assert f"<h1>{line}</h1>" in render([replace(NIGHT, **changes)])


def test_nights_without_records_or_audits_have_no_figures_of_them() -> None:
    nothing = NightRecord(None, "2026-11-01T02:30:00+00:00", 0.0, 0, "nothing to do")
    assert "<svg" not in render([nothing])
    assert render([replace(NIGHT, bound=None, evidence=None, audited=0)]).count("<svg") == 2


def test_the_line_of_a_night_has_all_that_a_log_needs() -> None:
    night = replace(NIGHT, left=1, waiting=2, resumed=True, exit_code=6, message="ALARM: x")
    assert night.line() == (
        "2026-11-01T02:30:00+00:00 0001-2026-11-01: exit 6; policy 1; 3 shards (3 new, 0 late, "
        "0 rewritten), 3000 records, 2990 labelled, 10 rejected, 0.29 ms per image (full network "
        "0.92); 1 of 30 audits disagree; 1 shards left for the next night; 2 shards not begun; "
        "resumed; ALARM: x"
    )


def test_a_call_ends_with_the_code_of_its_last_night_that_was_not_simply_done() -> None:
    alarm, done = replace(NIGHT, exit_code=6), NIGHT
    assert [exit_code_of(found) for found in ([], [done], [alarm, done])] == [0, 0, 6]


def test_a_history_counts_closed_nights_of_a_policy_and_keeps_its_first_alarm() -> None:
    other = replace(NIGHT, policy="other", audited=5)
    history = History(
        1,
        (
            replace(NIGHT, closed=False),
            NIGHT,
            other,
            replace(NIGHT, alarm="first"),
            replace(NIGHT, alarm="second", audited=0, disagreed=0),
        ),
    )
    assert [(a.audited, a.disagreed) for a in history.audits(NIGHT.policy or "")] == [(30, 1)] * 2
    assert history.alarm(NIGHT.policy or "") == "first"
    assert history.alarm("other") is None
    assert history.last("0001-2026-11-01") == history.nights[-1]
    assert history.last("0002") is None
