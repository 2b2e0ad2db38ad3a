"""Options that several commands share, and what they mean for a worker."""

import os
from dataclasses import dataclass

from policy.errors import InputError
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
    """Threads per worker that decode and resize images ahead of the network; 0: one per core."""
    threads: int = 0
    """Threads per worker for networks on a CPU; 0: all cores, shared among the workers."""
    workers: int = 1
    """Worker processes of the local runner."""

    def __post_init__(self) -> None:
        """Refuse sizes that do nothing."""
        for name in ("batch_size", "workers"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {getattr(self, name)}: wanted at least 1")
        for name in ("decode_threads", "threads"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {getattr(self, name)}: wanted 0 or more")

    @property
    def worker(self) -> WorkerOptions:
        """These options as one worker sees them."""
        cores = os.cpu_count() or 1
        return WorkerOptions(
            batch_size=self.batch_size,
            decode_threads=self.decode_threads or cores,
            threads=self.threads or max(1, cores // self.workers),
            device=self.device,
        )
