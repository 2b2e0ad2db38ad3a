"""How many cores a worker may use: those of its machine, shared among the workers there."""

import os
from pathlib import Path

from policy.errors import InputError, shown

PROCESSES = "ADALABEL_WORKER_PROCESSES"
"""Environment variable: how many worker processes share the machine that this one runs on."""

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(limit: Path = _CGROUP) -> int:
    """The cores this process may run on: its affinity, and a container's quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota(limit)
    return cores if quota is None else max(1, min(cores, quota))


def _quota(limit: Path) -> int | None:
    """Whole cores of a container's CPU quota (cgroup v2: "MICROSECONDS PERIOD"), None for none."""
    try:
        quota, period = limit.read_text().split()
    except (OSError, ValueError):
        return None
    return int(quota) // int(period) if quota != "max" else None


def cores_of_one() -> int:
    """Cores for this one of the worker processes that share the machine.

    Raises InputError if the environment does not say how many in a number.
    """
    sharing = os.environ.get(PROCESSES, "1")
    if not sharing.isdecimal() or not int(sharing):
        raise InputError(f"{PROCESSES}={shown(sharing)}: wanted a number of processes, 1 or more")
    return max(1, usable_cores() // int(sharing))
