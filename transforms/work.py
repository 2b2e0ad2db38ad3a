"""What Beam runs on every worker: a DoFn whose elements are shards, and how it uses its machine.

Pixels never cross a shuffle. `ShardFn` is the one DoFn.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from transforms.cores import cores_of_one
from transforms.decode_limits import DEFAULT_LIMITS, DecodeLimits
from transforms.decoding import Decoder, HereDecoder
from transforms.doing import Budget
from transforms.failures import reasons_given
from transforms.gpus import own_device
from transforms.isolate import IsolatedDecoder
from transforms.shard_loop import ShardLoop, Step
from transforms.shards import Shard


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

        In the process that launches, `shared` may have it already.
        """
        self.load = load
        self.make_step = make_step
        self.worker = worker
        self.shared = shared or Shared()

    def setup(self) -> None:
        """Load networks once a process, and start this instance's decoding threads."""
        self.worker = self.worker.here()
        self.loaded = self.shared.acquire(lambda: self.load(self.worker))
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
