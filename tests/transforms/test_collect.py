from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from transforms.collect import Blocks, Collector
from transforms.prepare import Prepared

Place = tuple[str, int]


@dataclass(frozen=True)
class Said:
    """A block that knows of each row what it should be."""

    values: Sequence[Place]

    def take(self, rows: NDArray[np.intp]) -> "Said":
        return Said([self.values[row] for row in rows])


def add(collector: Collector[Said], *places: Place) -> None:
    collector.add([Prepared(shard, row, "key", None) for shard, row in places], Said(places))


def ordered(blocks: Blocks[Said]) -> list[Place]:
    """The rows of a shard in order, by each of the ways to get at them."""
    rows = {int(n): block.values[i] for own, block in blocks.each() for i, n in enumerate(own)}
    found = [rows[n] for n in range(len(blocks.rows))]
    one_by_one = [value for block in blocks.blocks for value in block.values]
    assert [one_by_one[place] for place in blocks.place_of] == found
    for n, of in enumerate(blocks.block_of):
        assert found[n] in blocks.blocks[of].values
    return found


def test_a_shard_is_handed_out_once_when_each_record_has_its_row() -> None:
    rows = Collector[Said]()
    add(rows, ("a", 1))
    rows.end("a", 2)
    assert list(rows.whole()) == []
    add(rows, ("a", 0))
    ((shard, blocks),) = rows.whole()
    assert (shard, ordered(blocks)) == ("a", [("a", 0), ("a", 1)])
    assert list(rows.whole()) == []
    rows.check_empty()


@pytest.mark.parametrize("size", [1, 3, 16, 48])
def test_rows_in_any_order_across_shards_come_back_in_theirs(size: int) -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": 0, "b": 1, "c": 40, "d": 7}
    rows, found = Collector[Said](), {}
    places = [(shard, row) for shard, size in sizes.items() for row in range(size)]
    for shard, records in sizes.items():
        rows.end(shard, records)
    mixed = [places[at] for at in rng.permutation(len(places))]
    for start in range(0, len(mixed), size):
        add(rows, *mixed[start : start + size])
        found |= {shard: ordered(blocks) for shard, blocks in rows.whole()}
    assert found == {shard: [(shard, row) for row in range(n)] for shard, n in sizes.items()}
    rows.check_empty()


def test_a_block_of_several_shards_is_cut_so_that_none_keeps_the_rows_of_another() -> None:
    rows = Collector[Said]()
    add(rows, ("a", 0), ("b", 0), ("a", 1))
    rows.end("b", 1)
    ((_, blocks),) = rows.whole()
    assert [block.values for block in blocks.blocks] == [[("b", 0)]]


def test_a_block_of_one_shard_is_not_copied() -> None:
    rows, block = Collector[Said](), Said([("a", 0)])
    rows.add([Prepared("a", 0, "key", None)], block)
    rows.end("a", 1)
    ((_, blocks),) = rows.whole()
    assert blocks.blocks[0] is block


def test_a_shard_without_records_is_whole_as_soon_as_it_is_read() -> None:
    rows = Collector[Said]()
    rows.end("a", 0)
    ((shard, blocks),) = rows.whole()
    assert (shard, ordered(blocks)) == ("a", [])


@pytest.mark.parametrize("together", [False, True])
def test_two_rows_for_one_record_are_refused(together: bool) -> None:  # noqa: FBT001
    rows = Collector[Said]()
    if not together:
        add(rows, ("a", 2), ("a", 3))
    with pytest.raises(ValueError, match="record 3 of shard 'a' has two rows"):
        add(rows, *[("a", 3)] * (1 + together))


@pytest.mark.parametrize(("records", "found"), [(2, "2"), (None, "None")])
def test_a_shard_that_is_not_whole_at_the_end_is_a_bug(records: int | None, found: str) -> None:
    rows = Collector[Said]()
    add(rows, ("a", 0))
    if records is not None:
        rows.end("a", records)
    with pytest.raises(RuntimeError, match=f"shard 'a': 1 rows for {found} records; this is a bug"):
        rows.check_empty()
