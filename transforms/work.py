"""What every worker does with a shard: read, decode ahead, hand to a step, write whole shards.

Elements of a pipeline are shards, by path; pixels never cross a shuffle. `ShardFn` is the one DoFn.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from policy.rows import OK
from transforms.collect import Block, Blocks, Collector
from transforms.cores import cores_of_one
from transforms.decode_ahead import DecodeAhead
from transforms.decode_limits import DEFAULT_LIMITS, DecodeLimits
from transforms.decoding import Decoder, HereDecoder
from transforms.doing import COMMIT, OTHER, READ, Budget, doing, use
from transforms.failures import reasons_given
from transforms.gpus import own_device
from transforms.images import InputSpec
from transforms.isolate import IsolatedDecoder
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


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker uses its machine.

    batch_size: images per forward pass. decode_threads: threads that decode ahead. threads: torch's
    own on a CPU. Of either, 0: the worker's share of the cores of its machine. device: cpu, cuda or
    cuda:N. limits: what an image may cost to decode. isolate_decode: decode in processes, one for
    each thread, instead of in the threads. compile: compile networks first. accelerator, min_ram:
    what the machine must have, as Beam's resource hints say it; empty for whatever there is.
    """

    batch_size: int
    decode_threads: int
    threads: int
    device: str
    limits: DecodeLimits = DEFAULT_LIMITS
    isolate_decode: bool = False
    compile: bool = False
    accelerator: str = ""
    min_ram: str = ""

    @property
    def compile_for(self) -> int:
        """Images that compiled networks take at once; 0 where they are not compiled."""
        return self.batch_size if self.compile else 0

    @property
    def loads(self) -> tuple[str, int]:
        """What decides how networks are loaded: workers for which it is the same can share them."""
        return self.device, self.compile_for

    @property
    def hints(self) -> dict[str, str]:
        """What the machine must have, as Beam's resource hints."""
        wanted = {"accelerator": self.accelerator, "min_ram": self.min_ram}
        return {name: value for name, value in wanted.items() if value}

    @property
    def turns(self) -> bool:
        """Whether decoding and networks take turns, as they share cores."""
        return self.device == "cpu"

    def here(self) -> "WorkerOptions":
        """These options on the machine that this is called on, with no number left open.

        Of several GPUs, this process takes one.
        """
        cores = cores_of_one()
        return replace(
            self,
            decode_threads=self.decode_threads or cores,
            threads=self.threads or cores,
            device=own_device(self.device),
        )

    def decoder(self, side: int | None) -> Decoder:
        """What decodes JPEGs to a shorter side of these pixels at least; to be closed."""
        return (IsolatedDecoder if self.isolate_decode else HereDecoder)(self.limits, side)


class ShardFn(beam.DoFn):
    """Shard -> statistics of each shard written (dict of numbers and strings)."""

    def __init__(
        self,
        load: Callable[[WorkerOptions], Any],
        make_step: Callable[[Any, WorkerOptions, Executor], Step],
        worker: WorkerOptions,
        shared: Shared | None = None,
    ) -> None:
        """`load` makes what all threads of a process share; `make_step` uses it for a bundle.

        In the process that launches, `shared` may have it already (`WorkerOptions.loads`).
        """
        self.load = load
        self.make_step = make_step
        self.worker = worker
        self.shared = shared or Shared()

    def setup(self) -> None:
        """Load networks once a process, and start this instance's decoding threads."""
        self.worker = self.worker.here()
        self.loaded = self.shared.acquire(lambda: self.load(self.worker), self.worker.loads)
        self.budget: Budget | None = None
        self.pool = ThreadPoolExecutor(self.worker.decode_threads, thread_name_prefix="decode")
        self.decoder = self.worker.decoder(self.loaded.decode_side)

    def start_bundle(self) -> None:
        """Start with empty queues."""
        step = self.make_step(self.loaded, self.worker, self.pool)
        self.budget = self.budget or Budget()  # it counts from the first bundle on
        turns = self.worker.turns
        depth = self.worker.batch_size * (1 if turns else 2)
        self.loop = ShardLoop(step, self.pool, depth, self.decoder, turns=turns, budget=self.budget)

    def process(self, shard: Shard) -> Iterator[dict[str, Any]]:
        """Read a shard."""
        with reasons_given():
            yield from self.loop.process(shard)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Finish what waits in queues and write the shards that are left."""
        with reasons_given():
            for statistics in self.loop.finish():
                yield WindowedValue(statistics, GlobalWindow().max_timestamp(), (GlobalWindow(),))

    def teardown(self) -> None:
        """Stop the threads, then the processes they use."""
        self.pool.shutdown(cancel_futures=True)
        self.decoder.close()


def on_workers(
    load: Callable[[WorkerOptions], Any],
    make_step: Callable[[Any, WorkerOptions, Executor], Step],
    worker: WorkerOptions,
    shared: Shared | None = None,
) -> beam.PTransform[Any, Any]:
    """The Beam step that `ShardFn` is, on machines that have what `worker` wants."""
    step: beam.PTransform[Any, Any] = beam.ParDo(ShardFn(load, make_step, worker, shared))
    return step.with_resource_hints(**worker.hints)
