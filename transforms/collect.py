"""Putting rows back into their shards: batches cross shards, files do not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

RowT = TypeVar("RowT")


@dataclass
class _Open(Generic[RowT]):
    rows: dict[int, RowT] = field(default_factory=dict)
    records: int | None = None


class Collector(Generic[RowT]):
    """Rows of shards in the making. A shard is whole when each of its records has its row."""

    def __init__(self) -> None:
        """Start with no shard open."""
        self._open: dict[str, _Open[RowT]] = {}

    def add(self, shard: str, row: int, value: RowT) -> None:
        """Put down the row of one record; a record has exactly one."""
        rows = self._open.setdefault(shard, _Open()).rows
        if row in rows:
            raise ValueError(f"record {row} of shard {shard!r} has two rows")
        rows[row] = value

    def end(self, shard: str, records: int) -> None:
        """Say how many records the shard turned out to have."""
        self._open.setdefault(shard, _Open()).records = records

    def whole(self) -> Iterator[tuple[str, list[RowT]]]:
        """Hand out, once, every shard that is whole, with its rows in record order."""
        for shard, found in list(self._open.items()):
            if found.records == len(found.rows):
                del self._open[shard]
                yield shard, [found.rows[row] for row in range(found.records)]

    def check_empty(self) -> None:
        """Raise RuntimeError if a shard is not whole although all work is done."""
        for shard, found in self._open.items():
            raise RuntimeError(
                f"shard {shard!r}: {len(found.rows)} rows for {found.records} records; this is a "
                "bug in adalabel"
            )
