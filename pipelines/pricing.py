"""From costs per image to seconds, hours of a device, and money, and what that takes as given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.options import RunOptions
from policy.costs import Calibration, Costs
from policy.errors import InputError

MILLISECONDS = "ms"
USD = "usd"
_CPU = "CPU"  # what calibrate's names of such devices start with
_WORKERS = ("parallelism", "max_num_workers", "num_workers", "direct_num_workers")
"""Flags of Beam that say how many workers there are at once; the first one that is given counts."""


@dataclass(frozen=True)
class Quote:
    """What labelling or extracting everything that is to do would take in one way, `name`.

    `cost` is the mean per image. `loses` is the mean regret on held-out images (see losses.regret),
    None where not known. `seconds` on the clock without start-up, `device_hours` of all devices and
    `usd` are None where nothing is known that they follow from.
    """

    name: str
    cost: float
    loses: float | None
    seconds: float | None
    device_hours: float | None
    usd: float | None


@dataclass(frozen=True)
class Pricing:
    """How costs in `unit` become time: on devices like the one of `calibration`, so many at once.

    `assumed` and `warnings` say in words what that takes for granted, and what does not fit.
    """

    unit: str
    device: str
    at_once: float
    usd_per_hour: float | None
    assumed: tuple[str, ...]
    warnings: tuple[str, ...]

    def quote(self, name: str, cost: float, records: int, loses: float | None = None) -> Quote:
        """Price so many records at this mean cost."""
        total = records * cost
        if self.unit == USD:
            return Quote(name, cost, loses, None, None, total)
        if self.unit != MILLISECONDS:
            return Quote(name, cost, loses, None, None, None)
        seconds = total / 1e3
        usd = None if self.usd_per_hour is None else seconds / 3600 * self.usd_per_hour
        return Quote(name, cost, loses, seconds / self.at_once, seconds / 3600, usd)


def pricing(
    options: RunOptions,
    unit: str,
    calibration: Calibration,
    usd_per_hour: float | None,
    beam_args: Sequence[str],
) -> Pricing:
    """What costs of this unit, measured like this, say of a run with these options."""
    device = calibration.device or "the device that the costs were measured on"
    if unit != MILLISECONDS:
        why = (
            f"the costs are in {unit}, from which no time follows: measure with `adalabel "
            "calibrate` where the run will be, and give --costs"
        )
        return Pricing(unit, device, 1.0, usd_per_hour, (), () if unit == USD else (why,))
    workers, said = _workers(options, beam_args)
    fits = calibration.device is not None and _is_cpu(calibration) == (options.device == "cpu")
    at_once, how = float(workers), f"{said}, each like {device}"
    if fits and _is_cpu(calibration) and calibration.threads and options.on == "local":
        ours = workers * options.worker.threads
        at_once = ours / calibration.threads
        own = options.worker.threads
        how = f"{said} with {own} threads each; the costs were measured with {calibration.threads}"
    assumed = (
        how,
        "decoding and networks take turns, as when they were measured; a GPU overlaps them",
        "images like those that were measured and fitted on; start-up and writing not counted",
    )
    warnings = tuple(_warnings(options, calibration))
    return Pricing(unit, device, at_once, usd_per_hour, assumed, warnings)


def _is_cpu(calibration: Calibration) -> bool:
    return (calibration.device or "").startswith(_CPU)


def _workers(options: RunOptions, beam_args: Sequence[str]) -> tuple[int, str]:
    """How many workers there are at once, and that in words."""
    if options.on == "local":
        return options.workers, f"--workers {options.workers} on this machine"
    given = PipelineOptions(list(beam_args)).get_all_options(drop_default=True)
    for flag in _WORKERS:
        number = given.get(flag)
        if isinstance(number, int) and number > 0:
            return number, f"{number} workers at once (--{flag})"
    return options.workers, f"{options.workers} workers at once (--workers)"


def _warnings(options: RunOptions, calibration: Calibration) -> list[str]:
    found = []
    if calibration.device is None:
        found.append("nobody knows what the costs were measured on; give --costs to be sure")
    elif _is_cpu(calibration) != (options.device == "cpu"):
        found.append(
            f"the costs were measured on {calibration.device}, and the run is to use --device "
            f"{options.device}: calibrate there, and give --costs"
        )
    size = calibration.batch_size
    if size is not None and size != options.batch_size:
        found.append(
            f"measured at batches of {size}; the run has --batch-size {options.batch_size}"
        )
    return found


def check_costs(costs: Costs, fingerprints: Mapping[str, str]) -> None:
    """Raise InputError if costs are those of other networks of the same names."""
    differs = costs.difference("the networks file gives", fingerprints)
    if differs:
        raise InputError(f"--costs: {differs} Calibrate with this networks file.")
