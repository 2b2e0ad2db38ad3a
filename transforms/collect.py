"""Putting blocks of rows back into their shards: batches cross shards, files do not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from transforms.prepare import Prepared


class Block(Protocol):
    """What became of n records that were finished together; holds no pixels."""

    def take(self, rows: NDArray[np.intp]) -> Self:
        """A copy of these of its n rows, which keeps nothing of the others in memory."""


BlockT = TypeVar("BlockT", bound=Block)


@dataclass(frozen=True)
class Blocks(Generic[BlockT]):
    """A whole shard: its blocks, in any order, and which of its rows each of them has.

    `rows` [n] are the numbers of the rows in the shard, those of the first block first.
    """

    rows: NDArray[np.intp]
    blocks: Sequence[BlockT]
    sizes: Sequence[int]

    def each(self) -> Iterator[tuple[NDArray[np.intp], BlockT]]:
        """Every block, with the numbers of its rows in the shard."""
        start = 0
        for block, size in zip(self.blocks, self.sizes, strict=True):
            yield self.rows[start : start + size], block
            start += size

    @property
    def block_of(self) -> NDArray[np.intp]:
        """[n], the number of the block that has each row of the shard."""
        found = np.empty(len(self.rows), dtype=np.intp)
        found[self.rows] = np.repeat(np.arange(len(self.blocks)), self.sizes)
        return found

    @property
    def place_of(self) -> NDArray[np.intp]:
        """[n], where each row of the shard is, counting the rows of one block after the other."""
        found = np.empty(len(self.rows), dtype=np.intp)
        found[self.rows] = np.arange(len(self.rows))
        return found


@dataclass
class _Open(Generic[BlockT]):
    rows: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    blocks: list[BlockT] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    records: int | None = None


class Collector(Generic[BlockT]):
    """Rows of shards in the making. A shard is whole when each of its records has its row.

    What it holds are the rows of shards that are not whole and no others: a block that crosses
    shards is cut, and its caller may let go of it.
    """

    def __init__(self) -> None:
        """Start with no shard open."""
        self._open: dict[str, _Open[BlockT]] = {}
        self._whole: list[str] = []

    def add(self, items: Sequence[Prepared], block: BlockT) -> None:
        """Put down the rows of these records, in the order of the block; a record has one."""
        names = [item.shard for item in items]
        shards = dict.fromkeys(names)
        if len(shards) == 1:
            self._put(names[0], [item.row for item in items], block)
            return
        for shard in shards:
            own = np.array([n for n, name in enumerate(names) if name == shard], dtype=np.intp)
            self._put(shard, [items[n].row for n in own], block.take(own))

    def _put(self, shard: str, rows: list[int], block: BlockT) -> None:
        found = self._open.setdefault(shard, _Open())
        before = len(found.seen)
        found.seen.update(rows)
        found.rows += rows
        if len(found.seen) < before + len(rows):
            twice = next(row for row in rows if found.rows.count(row) > 1)
            raise ValueError(f"record {twice} of shard {shard!r} has two rows")
        found.blocks.append(block)
        found.sizes.append(len(rows))
        self._note(shard, found)

    def end(self, shard: str, records: int) -> None:
        """Say how many records the shard turned out to have."""
        found = self._open.setdefault(shard, _Open())
        found.records = records
        self._note(shard, found)

    def _note(self, shard: str, found: _Open[BlockT]) -> None:
        if found.records == len(found.rows):
            self._whole.append(shard)

    def whole(self) -> Iterator[tuple[str, Blocks[BlockT]]]:
        """Hand out, once, every shard that is whole."""
        while self._whole:
            shard = self._whole.pop(0)
            found = self._open.pop(shard)
            rows = np.array(found.rows, dtype=np.intp)
            yield shard, Blocks(rows, tuple(found.blocks), tuple(found.sizes))

    def check_empty(self) -> None:
        """Raise RuntimeError if a shard is not whole although all work is done."""
        for shard, found in self._open.items():
            raise RuntimeError(
                f"shard {shard!r}: {len(found.rows)} rows for {found.records} records; this is a "
                "bug in adalabel"
            )
