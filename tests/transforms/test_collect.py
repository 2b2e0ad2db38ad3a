import numpy as np
import pytest

from transforms.collect import Collector


def test_a_shard_is_handed_out_once_when_each_record_has_its_row() -> None:
    rows = Collector[str]()
    rows.add("a", 1, "second")
    rows.end("a", 2)
    assert list(rows.whole()) == []
    rows.add("a", 0, "first")
    assert list(rows.whole()) == [("a", ["first", "second"])]
    assert list(rows.whole()) == []
    rows.check_empty()


def test_rows_in_any_order_across_shards_come_back_in_theirs() -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": 0, "b": 1, "c": 40, "d": 7}
    rows, found = Collector[tuple[str, int]](), {}
    places = [(shard, row) for shard, size in sizes.items() for row in range(size)]
    for shard, size in sizes.items():
        rows.end(shard, size)
    for at in rng.permutation(len(places)):
        rows.add(*places[at], value=places[at])
        found |= dict(rows.whole())
    assert found == {shard: [(shard, row) for row in range(size)] for shard, size in sizes.items()}


def test_a_shard_without_records_is_whole_as_soon_as_it_is_read() -> None:
    rows = Collector[str]()
    rows.end("a", 0)
    assert list(rows.whole()) == [("a", [])]


def test_two_rows_for_one_record_are_refused() -> None:
    rows = Collector[str]()
    rows.add("a", 3, "x")
    with pytest.raises(ValueError, match="record 3 of shard 'a' has two rows"):
        rows.add("a", 3, "y")


@pytest.mark.parametrize(("records", "found"), [(2, "2"), (None, "None")])
def test_a_shard_that_is_not_whole_at_the_end_is_a_bug(records: int | None, found: str) -> None:
    rows = Collector[str]()
    rows.add("a", 0, "x")
    if records is not None:
        rows.end("a", records)
    with pytest.raises(RuntimeError, match=f"shard 'a': 1 rows for {found} records; this is a bug"):
        rows.check_empty()
