"""costs.json: what each stage costs per image, measured by `adalabel calibrate` or by hand."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.files import read_bytes
from policy.fingerprints import difference
from policy.schema import MOST_BYTES, STRICT, from_json


@dataclass(frozen=True, config=STRICT)
class Calibration:
    """What costs were measured on: the device's name, images per batch, and threads of a CPU.

    None for what is not known.
    """

    device: str | None = None
    batch_size: int | None = None
    threads: int | None = None


@dataclass(frozen=True, config=STRICT)
class Costs:
    """Cost per image of each stage in one unit.

    `fingerprints` are those of the networks that were measured, None where that is not known;
    `about` says where the numbers come from.
    """

    unit: str
    costs: dict[str, float]
    about: dict[str, Any] | None = None
    fingerprints: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are no costs."""
        wrong = {k: v for k, v in self.costs.items() if not math.isfinite(v) or v < 0}
        if wrong or not self.costs:
            raise InputError(f"wanted at least one cost, finite and >= 0; found {wrong or 'none'}")

    @property
    def calibration(self) -> Calibration:
        """What `about` says of where they were measured, as far as it does."""
        about = self.about or {}
        device = about.get("device")
        batch_size, threads = (
            number if type(number := about.get(name)) is int and number > 0 else None
            for name in ("batch_size", "threads")
        )
        return Calibration(device if isinstance(device, str) else None, batch_size, threads)

    def difference(self, here: str, found: Mapping[str, str]) -> str | None:
        """How the measured networks differ from others of the same names; see fingerprints.py."""
        measured = {name: made for name, made in (self.fingerprints or {}).items() if name in found}
        return difference("the costs were measured on", measured, here, found)


def read_costs(path: str) -> Costs:
    """Read costs.json."""
    return from_json(Costs, read_bytes(path, "the file of costs", MOST_BYTES), path)
