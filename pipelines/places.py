"""Where a run can happen, and which machines can be asked for there."""

import re
from dataclasses import dataclass
from typing import Literal

from policy.errors import InputError, shown

Place = Literal["local", "flink", "spark", "dataflow"]
"""Where a run can happen; launch/runners.py has a preset for each."""

_EXAMPLES = {
    "accelerator": "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver",
    "min-ram": "16GB",
}
_ACCELERATOR = re.compile(r"type:[\w-]+;count:[1-9]\d*(;[\w-]+(:[\w.-]+)?)*")
_MIN_RAM = re.compile(r"\d+(\.\d+)?[KMGT]i?B")


@dataclass(frozen=True)
class Runner:
    """Where the pipelines of a command run: a preset, and Beam's flags that the user adds.

    `accelerator` is what the workers have, empty for none.
    """

    on: Place
    workers: int
    beam_flags: tuple[str, ...] = ()
    accelerator: str = ""


def check_machines(on: Place, device: str, accelerator: str, min_ram: str) -> None:
    """Refuse machines that nobody would start, a GPU for nothing, and none for --device."""
    for flag, given, wanted in (
        ("accelerator", accelerator, _ACCELERATOR),
        ("min-ram", min_ram, _MIN_RAM),
    ):
        if given and on != "dataflow":
            raise InputError(f"--{flag} {given}: only --on dataflow starts machines; leave it out")
        if given and not wanted.fullmatch(given):
            raise InputError(f"--{flag} {shown(given)}: wanted {_EXAMPLES[flag]}")
    if on == "dataflow" and device.startswith("cuda") != bool(accelerator):
        raise InputError(
            f"--on dataflow --device {device} with --accelerator {accelerator or '(none)'}: wanted "
            "both a GPU and --device cuda, or neither; "
            f'such as --device cuda --accelerator "{_EXAMPLES["accelerator"]}"'
        )
