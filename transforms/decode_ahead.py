"""Decoding on threads: ahead of the network where it runs on a GPU, in turns with it on a CPU."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait

from policy.errors import Unavailable, shown
from transforms.decoding import Decoder
from transforms.doing import DECODE, RESIZE, here
from transforms.images import InputSpec
from transforms.prepare import HERE, NONE, Prepared, prepare
from transforms.shards import Record

_AT_ONCE = 8  # records for a thread: handing over one costs as much as preparing a tiny one
_BYTES_AT_ONCE = 256 << 10  # or so many encoded bytes: large images are spread over all threads
_MOST_BYTES = 64 << 20  # encoded, under way; a record may be as large by itself
_HANGS = 4  # times the limit of CPU seconds, for threads that share a core
_SLACK_SECONDS = 60
_LOG = logging.getLogger(__name__)

_Placed = tuple[str, int, Record]
"""A record after its shard and its number in it."""


class _Task:
    """Records that one thread prepares, one after the other; `done` grows while it does."""

    def __init__(
        self, records: Sequence[_Placed], work: Callable[[_Placed], Prepared], pool: Executor
    ) -> None:
        self.records = records
        self.bytes = sum(len(record.image) for _, _, record in records)
        self.work = work
        self.done: list[Prepared] = []
        self.seconds: dict[str, float] = {}
        self.future: Future[None] = pool.submit(self._run)

    def _run(self) -> None:
        here().take()
        for record in self.records:
            self.done.append(self.work(record))
        spent = here().take()
        self.seconds = {name: spent.get(name, 0.0) for name in (DECODE, RESIZE)}


class DecodeAhead:
    """Threads that prepare records, which are handed back in order.

    They run ahead of whoever takes the records, so that a GPU never waits for them; or in turns
    with him, where networks run on the same cores: threads that compete for a core make each
    operation of a network wait for its slowest part.
    """

    def __init__(
        self,
        inputs: Mapping[str, InputSpec],
        pool: Executor,
        depth: int,
        *,
        turns: bool = False,
        later: Mapping[str, InputSpec] = NONE,
        decoder: Decoder = HERE,
    ) -> None:
        """Make the pixels of these input stages for every image, on `pool`.

        At most `depth` records are under way, and fewer if they are large; in `turns`, so many are
        gathered, prepared all at once, and handed back. `later` is as in `prepare`.
        """
        self.inputs = inputs
        self.pool = pool
        self.later = later
        self.decoder = decoder
        self._turns = turns
        self._at_once = min(_AT_ONCE, max(1, depth // 4))
        self._gather = max(1, depth) if turns else self._at_once
        self._gather_bytes = _MOST_BYTES if turns else _BYTES_AT_ONCE
        self._most = 0 if turns else depth
        self._gathered: list[_Placed] = []
        self._tasks: deque[_Task] = deque()
        self._gathered_bytes = 0
        self._under_way = 0
        self._bytes = 0

    def submit(self, shard: str, first: int, records: Sequence[Record]) -> Iterator[Prepared]:
        """Take records of a shard, whose numbers start at `first`; yield the oldest ones."""
        for row, record in enumerate(records, start=first):
            self._gathered.append((shard, row, record))
            self._gathered_bytes += len(record.image)
            if len(self._gathered) >= self._gather or self._gathered_bytes >= self._gather_bytes:
                self._start()
                while self._under_way > self._most or self._bytes > _MOST_BYTES:
                    yield from self._oldest()

    def drain(self) -> Iterator[Prepared]:
        """Yield all that is still under way."""
        self._start()
        while self._tasks:
            yield from self._oldest()

    def _start(self) -> None:
        """Hand what was gathered to the threads; in turns, wait for all of it."""
        records, self._gathered, self._gathered_bytes = self._gathered, [], 0
        for part in self._parts(records):
            task = _Task(part, self._prepare, self.pool)
            self._tasks.append(task)
            self._bytes += task.bytes
        self._under_way += len(records)
        for task in self._tasks if self._turns else ():
            self._wait(task)

    def _parts(self, records: Sequence[_Placed]) -> Iterator[list[_Placed]]:
        """So few records that none waits long for the others."""
        part: list[_Placed] = []
        held = 0
        for placed in records:
            part.append(placed)
            held += len(placed[2].image)
            if len(part) >= self._at_once or held >= _BYTES_AT_ONCE:
                yield part
                part, held = [], 0
        if part:
            yield part

    def _prepare(self, placed: _Placed) -> Prepared:
        return prepare(*placed, self.inputs, later=self.later, decoder=self.decoder)

    def _oldest(self) -> Iterator[Prepared]:
        task = self._tasks.popleft()
        self._wait(task)
        self._under_way -= len(task.done)
        self._bytes -= task.bytes
        yield from task.done

    def _wait(self, task: _Task) -> None:
        """Wait for a task, and count that in the proportions in which it spent its time."""
        if task.future.done():
            task.future.result()
            return
        with here().waiting_for(DECODE, lambda: task.seconds):
            self._watch(task)

    def _watch(self, task: _Task) -> None:
        """Wait for a task; end the process if its decoder hangs.

        Waited seconds are counted, not read off a clock: a process that was stopped for long and
        goes on has not waited.
        """
        done, waited = 0, 0
        while not wait([task.future], timeout=1).done:
            done, waited = len(task.done), waited + 1 if len(task.done) == done else 0
            if waited >= int(_HANGS * self.decoder.limits.seconds) + _SLACK_SECONDS:
                _hangs(task.records[done][2].key)
        task.future.result()


def _hangs(key: str) -> None:
    _LOG.critical(
        "record %s: its decoder hangs, and a thread cannot be ended; the same command with "
        "--isolate-decode loses only this record",
        shown(key),
    )
    os._exit(Unavailable.exit_code)  # an exception would wait for the thread, forever
