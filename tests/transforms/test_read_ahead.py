import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from transforms.read_ahead import read_ahead
from transforms.shards import ReadFailed, Record


def records(n: int, size: int = 0) -> list[Record]:
    return [Record(str(number), bytes(size)) for number in range(n)]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
def test_every_record_comes_once_in_order(n: int) -> None:
    assert [record for read in read_ahead(records(n)) for record in read] == records(n)


def test_what_reading_raises_is_raised_after_what_was_read() -> None:
    def broken() -> Iterator[Record]:
        yield from records(20)
        raise ReadFailed("the shard was changed")

    seen: list[Record] = []
    with pytest.raises(ReadFailed, match="the shard was changed"):
        seen.extend(record for read in read_ahead(broken()) for record in read)
    assert seen == records(20)


@pytest.mark.parametrize(("size", "most"), [(0, 130), (3 << 20, 14), (5 << 20, 8)])
def test_reading_runs_ahead_only_so_far(size: int, most: int) -> None:
    taken = 0

    def counted() -> Iterator[Record]:
        nonlocal taken
        for record in records(1000, 0):
            taken += 1
            yield Record(record.key, bytes(size))

    with closing(read_ahead(counted())) as lists:
        first = len(next(lists))
        for _ in range(20):
            threading.Event().wait(0.01)
        assert first <= taken <= most


def test_a_reader_that_is_not_wanted_any_more_ends() -> None:
    lists = read_ahead(records(1000))
    next(lists)
    lists.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read"]
