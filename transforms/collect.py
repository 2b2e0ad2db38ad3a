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
        self._whole: list[str] = []

    def add(self, shard: str, row: int, value: RowT) -> None:
        """Put down the row of one record; a record has exactly one."""
        found = self._open.setdefault(shard, _Open())
        if row in found.rows:
            raise ValueError(f"record {row} of shard {shard!r} has two rows")
        found.rows[row] = value
        self._note(shard, found)

    def end(self, shard: str, records: int) -> None:
        """Say how many records the shard turned out to have."""
        found = self._open.setdefault(shard, _Open())
        found.records = records
        self._note(shard, found)

    def _note(self, shard: str, found: _Open[RowT]) -> None:
        if found.records == len(found.rows):
            self._whole.append(shard)

    def whole(self) -> Iterator[tuple[str, list[RowT]]]:
        """Hand out, once, every shard that is whole, with its rows in record order."""
        while self._whole:
            shard = self._whole.pop(0)
            rows = self._open.pop(shard).rows
            yield shard, [rows[row] for row in range(len(rows))]

    def check_empty(self) -> None:
        """Raise RuntimeError if a shard is not whole although all work is done."""
        for shard, found in self._open.items():
            raise RuntimeError(
                f"shard {shard!r}: {len(found.rows)} rows for {found.records} records; this is a "
                "bug in adalabel"
            )
