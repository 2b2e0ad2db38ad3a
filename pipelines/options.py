"""Options that several commands share, and what they mean for a worker."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.output import Mode
from pipelines.places import Place, Runner, check_machines
from policy.errors import InputError, shown
from transforms.cores import usable_cores
from transforms.decode_limits import DEFAULT_LIMITS, DecodeLimits
from transforms.images import DECODER
from transforms.shards import Shard, match_shards
from transforms.shards.shard_manifest import read_shard_manifest, with_promises
from transforms.work import WorkerOptions

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What every command takes."""

    json: bool = False
    """Print the receipt as one JSON object, for machines."""

    def __post_init__(self) -> None:
        """Refuse nothing; what is made from this may."""


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(CommandOptions):
    """What a command takes that can tell what it would do."""

    dry_run: Annotated[bool, tyro.conf.arg(aliases=["--explain"])] = False
    """Run nothing and write nothing: tell what there is to do, and what it would take."""
    costs: str | None = None
    """For --dry-run: costs measured by `adalabel calibrate` where the run will be, to tell the time
    by; without it, the costs that the policy was fitted with."""
    usd_per_hour: float | None = None
    """For --dry-run: the price of an hour of the device that the costs were measured on."""

    def __post_init__(self) -> None:
        """Refuse prices that are none."""
        super().__post_init__()
        price = self.usd_per_hour
        if price is not None and not 0 <= price < math.inf:
            raise InputError(f"--usd-per-hour {price:g}: wanted 0 or more")


@dataclass(frozen=True, kw_only=True)
class MachineOptions(CommandOptions):
    """How a worker uses its machine."""

    batch_size: int = 64
    """Images per forward pass."""
    device: str = "cpu"
    """Where networks run: cpu, cuda or cuda:N. A missing GPU is an error, never the CPU instead."""
    decode_threads: int = 0
    """Threads per worker that decode and resize images ahead of the network; 0: one per core,
    shared among the workers."""
    threads: int = 0
    """Threads per worker for networks on a CPU; 0: all cores, shared among the workers."""
    compile: bool = False
    """Compile networks before the first image: each worker starts up to a minute later for every
    network, and then runs them about 1.4 times as fast (a C++ compiler is needed). Answers may
    differ in the last digits."""
    max_pixels: int = DEFAULT_LIMITS.max_pixels
    """Images of more pixels than this are rejected by their header."""
    max_image_bytes: int = DEFAULT_LIMITS.max_image_bytes
    """Images of more encoded bytes than this are rejected."""
    max_image_ratio: int = DEFAULT_LIMITS.max_ratio
    """Images whose sides differ by more than this factor are rejected by their header."""
    decode_seconds: float = DEFAULT_LIMITS.seconds
    """Images that take longer to decode are rejected: CPU seconds of a thread, looked at
    afterwards, or seconds of the clock of an isolated decoder, which is ended."""

    def __post_init__(self) -> None:
        """Refuse sizes that do nothing."""
        for name, least in (("batch_size", 1), ("decode_threads", 0), ("threads", 0)):
            _at_least(least, name, getattr(self, name))
        self._limits()

    def _limits(self) -> DecodeLimits:
        """What an image may cost."""
        return DecodeLimits(
            max_pixels=self.max_pixels,
            max_image_bytes=self.max_image_bytes,
            max_ratio=self.max_image_ratio,
            seconds=self.decode_seconds,
        )

    @property
    def worker(self) -> WorkerOptions:
        """These options as a worker sees them that has the machine to itself."""
        return self._worker(workers=1)

    def _worker(self, workers: int) -> WorkerOptions:
        """These options as one of several workers sees them: processes x threads = cores."""
        cores = max(1, usable_cores() // workers)
        return WorkerOptions(
            batch_size=self.batch_size,
            decode_threads=self.decode_threads or cores,
            threads=self.threads or cores,
            device=self.device,
            compile=self.compile,
            limits=self._limits(),
        )


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(MachineOptions):
    """Where the workers of a pipeline are, and how they use a machine."""

    on: Place = "local"
    """Where the run happens: a preset of Beam's flags; what comes after -- adds to it."""
    workers: int = 1
    """How many work at once: processes of the local runner, slots of the cluster, or on Dataflow,
    at most so many machines."""
    accelerator: str = ""
    """On Dataflow, the GPU of the machines that run networks, such as
    "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"; other steps run on
    machines without. With --device cuda."""
    min_ram: str = ""
    """On Dataflow, the least memory of the machines that run networks, such as 16GB."""

    def __post_init__(self) -> None:
        """Refuse a run without workers, and machines that nobody would start."""
        super().__post_init__()
        _at_least(1, "workers", self.workers)
        check_machines(self.on, self.device, self.accelerator, self.min_ram)

    def check_reach(self, paths: Iterable[str]) -> None:
        """Raise InputError if one is a path that holds here alone, and workers are elsewhere."""
        here = [path for path in paths if "://" not in path]
        if here and self.on == "dataflow":
            raise InputError(
                f"--on dataflow: {shown(here[0])} is a path of this machine, which no worker sees; "
                "wanted gs://bucket/..."
            )
        if self.on != "local":
            refuse_relative(f"--on {self.on}", here)

    @property
    def runner(self) -> Runner:
        """Where the pipeline runs."""
        return Runner(self.on, self.workers, accelerator=self.accelerator)

    @property
    def worker(self) -> WorkerOptions:
        """These options as one of the workers sees them; elsewhere, it counts its own cores."""
        if self.on == "local":
            return self._worker(self.workers)
        return WorkerOptions(
            batch_size=self.batch_size,
            decode_threads=self.decode_threads,
            threads=self.threads,
            device=self.device,
            compile=self.compile,
            limits=self._limits(),
            accelerator=self.accelerator,
            min_ram=self.min_ram,
        )

    @property
    def launcher(self) -> WorkerOptions:
        """These options as the launching process sees them: elsewhere, only workers have a GPU."""
        worker = replace(self.worker, compile=False)
        return worker if self.on == "local" else replace(worker, device="cpu")

    @property
    def in_one_process(self) -> bool:
        """Whether the launching process is the only worker, and loads networks alike as both."""
        alike = self.device == "cpu" and not self.compile
        return alike and self.on == "local" and self.workers == 1


@dataclass(frozen=True, kw_only=True)
class RunOptions(PlaceOptions):
    """What a run over shards does with its output."""

    mode: Mode = "resume"
    """What to do with shards that the output already has. resume: skip them; overwrite: make all
    again, and replace the old result once the new one is whole; retry-failed: make those again that
    hold rejected records or have changed since."""
    max_bad_fraction: float = 0.1
    """Share of the records that may be rejected (not counting duplicates); above it, the run ends
    with exit code 3 after writing what it knows, and an old result is not replaced."""
    isolate_decode: bool = False
    """Decode in processes, one for each decoding thread: a decoder that crashes or hangs then costs
    one record, and not the worker. Decoding is then about 30 % slower."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        super().__post_init__()
        if not 0 <= self.max_bad_fraction <= 1:
            raise InputError(f"--max-bad-fraction {self.max_bad_fraction}: wanted 0 to 1")

    @property
    def made_by(self) -> dict[str, str]:
        """What decides the pixels that networks see, and which images are rejected unseen."""
        limits = (self.max_pixels, self.max_image_bytes, self.max_image_ratio)
        return {
            "decoder": DECODER,
            "--max-pixels, --max-image-bytes, --max-image-ratio": ", ".join(map(str, limits)),
        }

    @property
    def worker(self) -> WorkerOptions:
        """These options as one of the workers sees them."""
        return replace(super().worker, isolate_decode=self.isolate_decode)


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Which shards a command reads, and what was promised of them."""

    input: tuple[str, ...]
    """Shards: paths, globs in quotes, or list files ending in .txt."""
    shard_manifest: str | None = None
    """What the shards must hold (`adalabel manifest`): rows out are then the records promised, and
    what is missing is rejected as "container"."""

    def shards(self) -> tuple[Shard, ...]:
        """The shards, with what the manifest promises; raises InputError if one differs from it."""
        shards = match_shards(self.input)
        if self.shard_manifest is None:
            _LOG.info("no --shard-manifest: what shards lost before now cannot be known")
            return shards
        manifest = read_shard_manifest(self.shard_manifest)
        return with_promises(shards, manifest, self.shard_manifest)


def refuse_relative(given: str, paths: Iterable[str]) -> None:
    """Raise InputError, which begins with what was given, if a path holds in this folder alone."""
    for path in paths:
        if "://" not in path and not Path(path).is_absolute():
            raise InputError(
                f"{given} {shown(path)}: a cluster's workers have other working folders than this "
                f"one; wanted the whole path, also in a list of shards, such as {Path.cwd() / path}"
            )


def _at_least(least: int, name: str, found: int) -> None:
    if found < least:
        raise InputError(f"--{name.replace('_', '-')} {found}: wanted at least {least}")
