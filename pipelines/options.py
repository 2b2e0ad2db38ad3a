"""Options that several commands share, and what they mean for a worker."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from policy.errors import InputError
from transforms.shards import Shard
from transforms.shards.shard_manifest import read_shard_manifest, with_promises
from transforms.work import WorkerOptions


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What every command takes."""

    json: bool = False
    """Print the receipt as one JSON object, for machines."""


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

    def __post_init__(self) -> None:
        """Refuse sizes that do nothing."""
        for name, least in (("batch_size", 1), ("decode_threads", 0), ("threads", 0)):
            _at_least(least, name, getattr(self, name))

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
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions(MachineOptions):
    """How the workers of a pipeline use a machine."""

    workers: int = 1
    """Worker processes of the local runner."""

    def __post_init__(self) -> None:
        """Refuse a run without workers."""
        super().__post_init__()
        _at_least(1, "workers", self.workers)

    @property
    def worker(self) -> WorkerOptions:
        """These options as one of the workers sees them."""
        return self._worker(self.workers)


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Which shards a command reads, and what was promised of them."""

    shard_manifest: str | None = None
    """What the shards must hold (`adalabel manifest`): rows out are then the records promised, and
    what is missing is rejected as "container"."""

    def with_promises(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """The shards with what the manifest promises; raises InputError if one differs from it."""
        if self.shard_manifest is None:
            return tuple(shards)
        manifest = read_shard_manifest(self.shard_manifest)
        return with_promises(shards, manifest, self.shard_manifest)


def usable_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _at_least(least: int, name: str, found: int) -> None:
    if found < least:
        raise InputError(f"--{name.replace('_', '-')} {found}: wanted at least {least}")
