from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.accounting import Account, account_for, check_bad_fraction
from policy.errors import TooManyBad, Unavailable
from policy.rows import LABELS_SCHEMA, account

SCHEMA = pa.schema([LABELS_SCHEMA.field("status"), LABELS_SCHEMA.field("error")])
STATUSES = ("ok", "ok", "ok", "duplicate", "decode", "too_large")


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def shard(name: str, *statuses: str) -> dict[str, Any]:
    """The statistics of a shard with rows of these statuses."""
    rows = [{"status": s, "error": None if s == "ok" else f"because {s}"} for s in statuses]
    return {"shard": name, **account(table(rows))}


def test_records_are_labelled_rejected_for_a_reason_or_duplicates() -> None:
    found = account_for(
        [shard("a", "ok", "ok", "decode"), shard("b", "duplicate", "decode", "empty")],
        {"a": 3, "b": 3},
    )
    errors = {"because decode": 2, "because duplicate": 1, "because empty": 1}
    assert found == Account(6, 2, {"decode": 2, "empty": 1}, 1, errors, 0)
    assert found.bad_fraction == 0.5
    assert found.text().splitlines() == [
        "6 records: 2 labelled, rejected: 2 decode, 1 empty, 1 duplicates, 0 unaccounted",
        "    2 x because decode",
        "    1 x because duplicate",
        "    1 x because empty",
    ]


@given(st.lists(st.lists(st.sampled_from(STATUSES), max_size=9), max_size=6))
def test_whatever_the_records_are_seen_is_what_they_add_up_to(statuses: list[list[str]]) -> None:
    shards = [shard(str(number), *found) for number, found in enumerate(statuses)]
    found = account_for(shards, {str(number): len(s) for number, s in enumerate(statuses)})
    assert found.seen == found.labelled + sum(found.rejected.values()) + found.duplicates
    assert found.unaccounted == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_one_row_too_few_or_too_many_anywhere_is_told(sizes: list[int], data: Any) -> None:
    wrong = data.draw(st.integers(0, len(sizes) - 1))
    change = data.draw(st.sampled_from([-1, 1] if sizes[wrong] else [1]))
    shards = [
        shard(str(number), *["ok"] * (size + change * (number == wrong)))
        for number, size in enumerate(sizes)
    ]
    with pytest.raises(Unavailable, match=rf"first '{wrong}' with \d+ rows for {sizes[wrong]} rec"):
        account_for(shards, {str(number): size for number, size in enumerate(sizes)})


def test_a_lost_shard_is_told_with_what_it_held() -> None:
    with pytest.raises(
        Unavailable, match=r"1 shards are not fully accounted for \(4 records\), first 'b' with 0"
    ):
        account_for([shard("a", "ok")], {"a": 1, "b": 4})


def test_too_many_bad_records_fail_the_run_and_duplicates_are_not_bad() -> None:
    found = account_for([shard("a", "ok", "decode", "duplicate", "duplicate")], {"a": 4})
    check_bad_fraction(found, 0.25, "out", "out")
    said = r"out: 1 of 4 records .* \(1 decode\), 25.0%; allowed .* 0.24. Commonest: .*1 x bec"
    with pytest.raises(TooManyBad, match=said + r".*So there is no manifest.* are in out/_next\."):
        check_bad_fraction(found, 0.24, "out", "out/_next")
    check_bad_fraction(account_for([], {}), 0.0, "out", "out")


def test_distinct_errors_are_named_up_to_a_limit_and_counted_beyond() -> None:
    numbers = np.random.default_rng(0).permutation(1000)
    words = [chr(97 + n // 26 % 26) + chr(97 + n % 26) + "x" * (n // 676) for n in numbers]
    rows = [{"status": "decode", "error": f"chunk {word}"} for word in words]
    rows += [{"status": "decode", "error": f"cut at byte {number}"} for number in range(7)]
    errors = account(table(rows))["errors"]
    assert len(errors) == 21
    assert errors["cut at byte #"] == 7
    assert (errors["other"], sum(errors.values())) == (1007 - 7 - 19, 1007)
