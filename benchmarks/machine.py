"""What figures were measured on: processor, memory, versions, and how busy it was."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from transforms.cores import usable_cores

PACKAGES = ("torch", "apache-beam", "numpy", "pillow", "pyarrow", "timm", "ray")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Of a processor, what decides how fast it multiplies matrices, and in which types."""


@dataclass(frozen=True)
class Machine:
    """Processor, usable cores, memory in GB, libraries' versions, and load over one minute."""

    processor: str
    cores: int
    memory_gb: float
    flags: tuple[str, ...]
    kernel: str
    python: str
    versions: dict[str, str]
    load: float

    def text(self) -> str:
        """In one paragraph."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        has = ", ".join(self.flags) or "none"
        lacks = ", ".join(flag for flag in FLAGS if flag not in self.flags) or "none"
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:.1f} GB, {self.kernel}, "
            f"Python {self.python}, {versions}; of its flags {has}; without {lacks}; "
            f"load {self.load:.2f} at the start"
        )


def machine() -> Machine:
    """What this process runs on, now."""
    known = _cpuinfo()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = known.get("flags", "").split()
    return Machine(
        processor=known.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        memory_gb=round(pages / 2**30, 1),
        flags=tuple(flag for flag in FLAGS if flag in flags),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=_versions(),
        load=round(os.getloadavg()[0], 2),
    )


def describe_machine() -> str:
    """Processor, cores and torch, for the head of a table in fp32."""
    found = asdict(machine())
    return f"{found['processor']}, {found['cores']} cores, torch {version('torch')}, fp32"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # what only some of the peers need
    return found


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
