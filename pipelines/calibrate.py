"""adalabel calibrate: measure what each stage costs per image on this device."""

import logging
import platform
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images

from pipelines.options import MachineOptions
from policy.costs import Costs
from policy.errors import InputError
from policy.files import write_bytes
from policy.rows import OK
from policy.schema import to_json
from transforms.calibrate import Timing, measure_stages
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.extract import load_engine
from transforms.images import decode
from transforms.networks_file import read_networks
from transforms.shards import Record, match_shards, read_records

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(MachineOptions):
    """Measure milliseconds per image of decoding and of every stage; count MACs."""

    networks: str
    """The networks file (TOML)."""
    output: str
    """Where to write the costs (JSON); at `batch_size`, with all measurements beside them."""
    input: tuple[str, ...] = ()
    """Shards to take sample images from; without them, two photographs of 640 x 427 pixels."""
    more_batch_sizes: tuple[int, ...] = (1,)
    """Batch sizes to measure beside `batch_size`."""
    samples: int = 64
    """Images to sample at most."""
    repeats: int = 7
    """Measurements of each stage, after two for warming up; the median counts."""

    def __post_init__(self) -> None:
        """Refuse to measure nothing."""
        super().__post_init__()
        for flag, found in (
            ("--more-batch-sizes", min(self.more_batch_sizes, default=1)),
            ("--samples", self.samples),
            ("--repeats", self.repeats),
        ):
            if found < 1:
                raise InputError(f"{flag} {found}: wanted at least 1")


@dataclass(frozen=True)
class CalibrateReceipt:
    """Where the costs are, and what they are."""

    output: str
    device: str
    timings: tuple[Timing, ...]

    def text(self) -> str:
        """For people."""
        lines = [f"{self.output}: measured on {self.device}"]
        lines.append(f"{'stage':32} {'batch':>5} {'ms/image':>9} {'quartiles':>17} {'GMAC':>8}")
        for t in self.timings:
            low, high = t.quartiles_ms
            lines.append(
                f"{t.stage:32} {t.batch_size:5d} {t.median_ms:9.3f} {low:8.3f} {high:8.3f} "
                f"{t.gmac:8.4f}"
            )
        return "\n".join(lines)


def run(options: CalibrateOptions) -> CalibrateReceipt:
    """Measure, then write costs.json."""
    engine = load_engine(read_networks(options.networks), None, options.worker)
    images = _samples(options)
    sizes = sorted({*options.more_batch_sizes, options.batch_size})
    with ThreadPoolExecutor(options.worker.decode_threads) as pool:
        timings = tuple(
            timing
            for size in sizes
            for timing in measure_stages(
                engine, images, size, options.repeats, pool, options.worker.limits
            )
        )
    device = _device_name(engine.device)
    about = {
        "device": device,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": options.batch_size,
        "decode_threads": options.worker.decode_threads,
        "samples": len(images),
        "source": list(options.input) or "two photographs of scikit-learn",
        "timings": [asdict(timing) for timing in timings],
    }
    chosen = {t.stage: t.median_ms for t in timings if t.batch_size == options.batch_size}
    write_bytes(options.output, to_json(Costs("ms", chosen, about, engine.fingerprints)).encode())
    return CalibrateReceipt(options.output, device, timings)


def _samples(options: CalibrateOptions) -> list[bytes]:
    """Encoded images to measure with."""
    if not options.input:
        folder = Path(load_sample_images().filenames[0]).parent
        return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    shards = match_shards(options.input)
    good: Iterable[bytes] = (
        record.image
        for shard in shards
        for record in read_records(shard)
        if _is_good(record, options.worker.limits)
    )
    images = list(islice(good, options.samples))
    if not images:
        raise InputError(f"--input {' '.join(options.input)}: no readable image to measure with")
    return images


def _is_good(record: Record, limits: DecodeLimits) -> bool:
    if record.status != OK:
        return False
    try:
        decode(record.image, limits)
    except BadImage:
        return False
    return True


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
