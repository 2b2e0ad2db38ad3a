"""What every worker does with a shard: read, decode ahead, hand to a step, write whole shards.

Elements of a pipeline are shards, by path; pixels never cross a shuffle. `ShardFn` is the one DoFn.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from policy.rows import OK
from transforms.collect import Collector
from transforms.cores import cores_of_one
from transforms.decode_limits import DEFAULT_LIMITS, DecodeLimits
from transforms.decoding import Decoder, HereDecoder
from transforms.failures import reasons_given
from transforms.images import InputSpec
from transforms.isolate import IsolatedDecoder
from transforms.prepare import HERE, DecodeAhead, Prepared
from transforms.shards import Shard, read_records

Row = Mapping[str, Any]
Placed = tuple[Prepared, Row]
"""A record and what became of it."""


class Step(Protocol):
    """What is done with the prepared records of shards; batches may cross shards."""

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """The inputs to prepare for every image."""

    @property
    def keeps_images(self) -> bool:
        """Whether further inputs are made from decoded images later."""

    def take(self, item: Prepared) -> Iterable[Placed]:
        """Take in a decoded record; give back those that are finished with it."""

    def flush(self) -> Iterable[Placed]:
        """Finish all that is waiting."""

    def reject(self, item: Prepared) -> Row:
        """The row of a record that could not be decoded."""

    def done(self, shard: Shard) -> dict[str, Any] | None:
        """The statistics of a shard that is done already."""

    def begin(self, shard: Shard) -> bool:
        """Whether to read a shard that is not done; one that is not begun is left undone."""

    def write(self, shard: Shard, rows: list[Row], started: float) -> dict[str, Any]:
        """Write a whole shard, begun at this time, rows in record order; return its statistics."""


class ShardLoop:
    """Runs one step over the shards of a bundle; needs no Beam."""

    def __init__(self, step: Step, pool: Executor, depth: int, decoder: Decoder = HERE) -> None:
        """Hand records to `step`, prepared on `pool` at most `depth` ahead."""
        self.step = step
        self.ahead = DecodeAhead(
            step.inputs, pool, depth, keep_image=step.keeps_images, decoder=decoder
        )
        self.rows: Collector[Row] = Collector()
        self._begun: dict[str, tuple[Shard, float]] = {}

    def process(self, shard: Shard) -> Iterator[dict[str, Any]]:
        """Read one shard; yield the statistics of every shard that became whole.

        A shard that another attempt has done meanwhile is left as it is, and so is one that the
        step does not begin.
        """
        done = self.step.done(shard)
        if done is not None:
            yield done
            return
        if not self.step.begin(shard):
            return
        self._begun[shard.name] = (shard, time.time())
        records = 0
        for records, record in enumerate(read_records(shard), start=1):
            for item in self.ahead.submit(shard.name, records - 1, record):
                self._take(item)
                yield from self._write()
        self.rows.end(shard.name, records)
        yield from self._write()

    def finish(self) -> Iterator[dict[str, Any]]:
        """Finish all shards read so far."""
        for item in self.ahead.drain():
            self._take(item)
        self._place(self.step.flush())
        yield from self._write()
        self.rows.check_empty()

    def _take(self, item: Prepared) -> None:
        if item.status == OK:
            self._place(self.step.take(item))
        else:
            self._place([(item, self.step.reject(item))])

    def _place(self, placed: Iterable[Placed]) -> None:
        for item, row in placed:
            self.rows.add(item.shard, item.row, row)

    def _write(self) -> Iterator[dict[str, Any]]:
        for name, rows in self.rows.whole():
            shard, started = self._begun.pop(name)
            yield self.step.write(shard, rows, started)


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker uses its machine.

    batch_size: images per forward pass. decode_threads: threads that decode ahead. threads: torch's
    own on a CPU. Of either, 0: the worker's share of the cores of its machine. device: cpu, cuda or
    cuda:N. limits: what an image may cost to decode. isolate_decode: decode in processes, one for
    each thread, instead of in the threads. accelerator, min_ram: what the machine must have, as
    Beam's resource hints say it; empty for whatever there is.
    """

    batch_size: int
    decode_threads: int
    threads: int
    device: str
    limits: DecodeLimits = DEFAULT_LIMITS
    isolate_decode: bool = False
    accelerator: str = ""
    min_ram: str = ""

    @property
    def hints(self) -> dict[str, str]:
        """What the machine must have, as Beam's resource hints."""
        wanted = {"accelerator": self.accelerator, "min_ram": self.min_ram}
        return {name: value for name, value in wanted.items() if value}

    def here(self) -> "WorkerOptions":
        """These options on the machine that this is called on, with no number of threads open."""
        cores = cores_of_one()
        return replace(
            self, decode_threads=self.decode_threads or cores, threads=self.threads or cores
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
    ) -> None:
        """`load` makes what all threads of a process share; `make_step` uses it for a bundle."""
        self.load = load
        self.make_step = make_step
        self.worker = worker
        self.shared = Shared()

    def setup(self) -> None:
        """Load networks once a process, and start this instance's decoding threads."""
        self.worker = self.worker.here()
        self.loaded = self.shared.acquire(lambda: self.load(self.worker))
        self.pool = ThreadPoolExecutor(self.worker.decode_threads, thread_name_prefix="decode")
        self.decoder = self.worker.decoder(self.loaded.decode_side)

    def start_bundle(self) -> None:
        """Start with empty queues."""
        step = self.make_step(self.loaded, self.worker, self.pool)
        depth = 2 * self.worker.batch_size
        self.loop = ShardLoop(step, self.pool, depth, self.decoder)

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
) -> beam.PTransform[Any, Any]:
    """The Beam step that `ShardFn` is, on machines that have what `worker` wants."""
    step: beam.PTransform[Any, Any] = beam.ParDo(ShardFn(load, make_step, worker))
    return step.with_resource_hints(**worker.hints)
