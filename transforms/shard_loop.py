"""The way of a shard through a worker: read, decode ahead, hand to a step, write it when whole."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import Any, Protocol

from policy.rows import OK
from transforms.collect import Block, Blocks, Collector
from transforms.decode_ahead import DecodeAhead
from transforms.decoding import Decoder
from transforms.doing import COMMIT, OTHER, READ, Budget, doing, use
from transforms.images import InputSpec
from transforms.prepare import HERE, Prepared
from transforms.read_ahead import read_ahead
from transforms.shards import Record, Shard, read_records

Row = Mapping[str, Any]
Placed = tuple[Sequence[Prepared], Block]
"""Records, and what became of them, in the same order."""


class Step(Protocol):
    """What is done with the prepared records of shards; batches may cross shards."""

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """The inputs to prepare for every image."""

    @property
    def later(self) -> Mapping[str, InputSpec]:
        """Further inputs that may be made from decoded images later."""

    def take(self, item: Prepared) -> Iterable[Placed]:
        """Take in a decoded record; give back those that are finished with it."""

    def flush(self) -> Iterable[Placed]:
        """Finish all that is waiting."""

    def reject(self, item: Prepared) -> Block:
        """The one row of a record that could not be decoded."""

    def done(self, shard: Shard) -> dict[str, Any] | None:
        """The statistics of a shard that is done already."""

    def begin(self, shard: Shard) -> bool:
        """Whether to read a shard that is not done; one that is not begun is left undone."""

    def write(self, shard: Shard, blocks: Blocks[Any], started: float) -> dict[str, Any]:
        """Write a whole shard, begun at this time; return its statistics."""


class ShardLoop:
    """Runs one step over the shards of a bundle; needs no Beam."""

    def __init__(
        self,
        step: Step,
        pool: Executor,
        depth: int,
        decoder: Decoder = HERE,
        *,
        turns: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Hand records to `step`, prepared on `pool` as DecodeAhead says; `budget` is of here."""
        self.step = step
        self.ahead = DecodeAhead(
            step.inputs, pool, depth, turns=turns, later=step.later, decoder=decoder
        )
        self.budget = budget or Budget()
        self.rows: Collector[Any] = Collector()
        self._begun: dict[str, tuple[Shard, float]] = {}

    def process(self, shard: Shard) -> Iterator[dict[str, Any]]:
        """Read one shard; yield the statistics of every shard that became whole.

        A shard that another attempt has done meanwhile is left as it is, and so is one that the
        step does not begin.
        """
        use(self.budget)
        with doing(OTHER):
            done = self.step.done(shard)
            if done is not None:
                yield done
            elif self.step.begin(shard):
                self._begun[shard.name] = (shard, time.time())
                yield from self._all_of(shard)

    def finish(self) -> Iterator[dict[str, Any]]:
        """Finish all shards read so far."""
        use(self.budget)
        with doing(OTHER):
            for item in self.ahead.drain():
                self._take(item)
            self._place(self.step.flush())
            yield from self._write()
            self.rows.check_empty()

    def _all_of(self, shard: Shard) -> Iterator[dict[str, Any]]:
        """Read a shard; yield the statistics of those that became whole."""
        records = 0
        with closing(read_ahead(read_records(shard))) as lists:
            for read in _reading(lists):
                for item in self.ahead.submit(shard.name, records, read):
                    self._take(item)
                records += len(read)
                yield from self._write()
        self.rows.end(shard.name, records)
        yield from self._write()

    def _take(self, item: Prepared) -> None:
        if item.status == OK:
            self._place(self.step.take(item))
        else:
            self._place([([item], self.step.reject(item))])

    def _place(self, placed: Iterable[Placed]) -> None:
        for items, block in placed:
            self.rows.add(items, block)

    def _write(self) -> Iterator[dict[str, Any]]:
        for name, blocks in self.rows.whole():
            shard, started = self._begun.pop(name)
            with doing(COMMIT):
                done = self.step.write(shard, blocks, started)
            yield done


def _reading(lists: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """The same lists, with the time that is waited for them noted."""
    while True:
        with doing(READ):
            read = next(lists, None)
        if read is None:
            return
        yield read
