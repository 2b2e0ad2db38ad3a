"""Workers see an alarm in the shards that are finished, and put it down once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.alarm import Audits, verdict
from policy.errors import Unavailable
from transforms import watch
from transforms.commit import Output
from transforms.watch import (
    AFTER,
    ALARM,
    Watch,
    Watcher,
    audits_of,
    keep_records,
    raise_alarm,
    read_alarm,
    read_records,
    seen_early,
)

TABLE = Audits(1000, 10)
RECORDS = {"a": 1000, "night/b": 1000, "c": 1000}


def finish(output: Output, name: str, audited: int, disagreed: int, **more: Any) -> None:
    says = {"files": {}, "audited": audited, "disagreed": disagreed, **more}
    output.create(f"{name}.json", json.dumps(says).encode())


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"), "run")


def watcher(output: Output, seconds: float = 0.0, table: Audits | None = TABLE) -> Watcher:
    return Watcher(Watch(table, "stop", keep_records(output, RECORDS), 0.1, seconds), output)


@pytest.fixture(autouse=True)
def _looks_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOKING_SHARE", 0)


def test_an_alarm_is_seen_once_the_finished_shards_show_it(output: Output) -> None:
    one = watcher(output)
    assert not one.alarm()
    finish(output, "a", 100, 1)
    assert not one.alarm()
    finish(output, "night/b", 100, 30)
    assert one.alarm()
    said = json.loads((Path(output.path) / ALARM).read_text())
    assert said["total"] == {"audited": 200, "disagreed": 31}
    assert said["message"].startswith(
        "31 of 200 audited images (15.50%) disagree with the full net"
    )


def test_each_shard_counts_once_in_however_many_looks(output: Output) -> None:
    finish(output, "a", 40, 2)
    one = watcher(output)
    assert not any(one.alarm() for _ in range(50))


def test_shards_that_others_have_begun_count_as_if_all_their_audits_agreed(output: Output) -> None:
    one, other = watcher(output), watcher(output)
    assert not any(other.alarm_at(name) for name in ("a", "night/b", "not of this run"))
    finish(output, "a", 100, 9)
    assert not one.alarm()  # 9 of 100 + 144 that may be audited
    finish(output, "night/b", 100, 9)
    assert one.alarm()


def test_evidence_seen_early_is_never_more_than_that_of_all_that_is_begun() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shards = [Audits(100, int(d)) for d in rng.binomial(100, rng.uniform(0, 0.2), 8)]
        under_way = int(rng.integers(0, 9))
        early = seen_early(TABLE, shards[under_way:], [1000] * under_way, 0.1)
        assert early.evidence <= verdict(TABLE, [total(shards)]).evidence * (1 + 1e-9)


def total(shards: list[Audits]) -> Audits:
    return Audits(sum(s.audited for s in shards), sum(s.disagreed for s in shards))


def test_an_alarm_stays_whatever_comes_later_and_other_workers_see_it(output: Output) -> None:
    one = watcher(output)
    finish(output, "a", 100, 50)
    assert one.alarm()
    finish(output, "c", 100_000, 0)
    assert one.alarm()
    assert watcher(output, table=None).alarm()


def test_the_first_alarm_stands(output: Output) -> None:
    one = watcher(output)
    finish(output, "a", 100, 50)
    one.alarm()
    first = read_alarm(output)
    finish(output, "c", 100, 50)
    other = watcher(output)
    assert other.alarm()
    assert raise_alarm(output, verdict(TABLE, [Audits(9, 9)])) == first == read_alarm(output)


def test_looks_are_no_more_frequent_than_is_said(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    one = watcher(output, seconds=10)
    assert not one.alarm()
    finish(output, "a", 100, 50)
    now[0] += 9.9
    assert not one.alarm()
    now[0] += 0.2
    assert one.alarm()


def test_what_is_not_of_this_run_or_not_by_the_policy_does_not_count(output: Output) -> None:
    finish(output, "yesterday", 100, 50)
    finish(output, "a", 100, 50, **{AFTER: True})
    (Path(output.path) / "c.json").write_text("no marker")
    assert not watcher(output).alarm()


def test_without_a_table_nothing_is_compared(output: Output) -> None:
    finish(output, "a", 100, 100)
    assert not watcher(output, table=None).alarm()


def test_shards_of_before_there_were_audits_count_nothing() -> None:
    assert audits_of({"shard": "a", "cost": 1.0}) == Audits(0, 0)


def test_an_alarm_file_of_another_kind_is_an_alarm_all_the_same(output: Output) -> None:
    output.create(ALARM, b"[]")
    assert read_alarm(output) == "an alarm without a message"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "x"}', b'{"a": 1'])
def test_counts_that_are_damaged_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(content)
    with pytest.raises(
        Unavailable, match=r"records\.json: the counts .* are damaged.*run the same"
    ):
        read_records(str(path))
