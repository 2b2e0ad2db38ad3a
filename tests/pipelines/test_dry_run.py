from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from pipelines.dry_run import DryRun, Todo, duration
from pipelines.pricing import Quote

DRY = DryRun(
    command="classify",
    output="out",
    todo=Todo(shards=2, records=2000, bytes=3_000_000, done=1, changed=0),
    stages={"decode": 1.0, "big": 0.25},
    unit="ms",
    quotes=(
        Quote("this policy", 3.25, 0.0123, 9000.0, 2.5, 1234.5),
        Quote("always big", 9.5, None, 30.0, 0.00833, 0.012),
    ),
    device="NVIDIA H200",
    load_seconds=1.25,
    assumed=("a",),
    warnings=("w",),
    beam_args=("--runner=x",),
)


def test_the_text_says_what_there_is_to_do_and_what_it_takes() -> None:
    assert DRY.text().splitlines() == [
        "out: dry run of classify; nothing was run, nothing was written",
        "  shards    2 to do, 1 done before, 0 changed since then",
        "  to do     2000 records, 3.0 MB",
        "  stages    decode 100%, big 25%",
        "                 ms/image  loses    time    hours       USD",
        "    this policy      3.25  1.23%   2.5 h      2.5  1,234.50",
        "    always big        9.5         30.0 s  0.00833     0.012",
        "  hours     of NVIDIA H200",
        "  start-up  not in these: loading the networks took 1.2 s here",
        "  assumed   a",
        "  warning   w",
    ]


def test_what_is_not_known_has_no_column() -> None:
    quotes = tuple(replace(q, seconds=None, device_hours=None, usd=None) for q in DRY.quotes)
    text = replace(DRY, unit="gmac", quotes=quotes, stages={}).text()
    assert "gmac/image  loses\n" in text
    assert "hours" not in text
    assert "stages    not known" in text


def test_why_a_run_would_be_refused_is_said() -> None:
    todo = replace(DRY.todo, refused="shard 'a' changed", changed=1)
    assert "  refused   shard 'a' changed\n" in replace(DRY, todo=todo).text()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.0, "3.0 s"), (119, "119.0 s"), (600, "10.0 min"), (7200, "2.0 h"), (864_000, "10.0 days")],
)
def test_a_duration_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_only_what_is_to_do_is_counted(tmp_path: Path) -> None:
    shards = [tiny.shard(name, tmp_path / name) for name in "abc"]
    some = [replace(shard, bytes=10) for shard in shards]
    todo = Todo.of(dict(zip(some, (1, 2, 4), strict=True)), some[1:], changed=1)
    assert todo == Todo(shards=2, records=6, bytes=20, done=1, changed=1, refused=None)
