"""costs.json: what each stage costs per image, measured by `adalabel calibrate` or by hand."""

import math
from typing import Any

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.files import read_bytes
from policy.schema import MOST_BYTES, STRICT, from_json


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


def read_costs(path: str) -> Costs:
    """Read costs.json."""
    return from_json(Costs, read_bytes(path, "the file of costs", MOST_BYTES), path)
