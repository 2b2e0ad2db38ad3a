"""What --isolate-decode costs: images per second of DecodeAhead in threads and in processes.

Run from the root: `ADALABEL_DATA=... python benchmarks/isolation.py`. Sides alternate; medians.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transforms.cores import usable_cores
from transforms.decode_ahead import DecodeAhead
from transforms.decode_limits import DEFAULT_LIMITS
from transforms.decoding import Decoder, HereDecoder
from transforms.images import InputSpec
from transforms.isolate import IsolatedDecoder
from transforms.shards import Record, match_shards, read_records

REPEATS = 5
HALF = (0.5, 0.5, 0.5)
SPECS = {"input": InputSpec(resize=256, crop=224, mean=HALF, std=HALF)}


def images_per_second(records: list[Record], decoder: Decoder, *, keep_image: bool) -> float:
    """Of all records, prepared by one thread a core."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        later = SPECS if keep_image else {}
        ahead = DecodeAhead(SPECS, pool, 128, later=later, decoder=decoder)
        started = time.perf_counter()
        for _ in ahead.submit("s", 0, records):
            pass
        for _ in ahead.drain():
            pass
        return len(records) / (time.perf_counter() - started)


def main() -> None:
    """Print medians and ratios."""
    shards = match_shards([str(Path(os.environ["ADALABEL_DATA"]) / "photos" / "*.tar")])
    records = [record for shard in shards for record in read_records(shard)]
    sides = {"threads": HereDecoder(), "processes": IsolatedDecoder(DEFAULT_LIMITS)}
    for keep_image in (False, True):
        found: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(REPEATS + 1):
            for name, decoder in sides.items():
                speed = images_per_second(records, decoder, keep_image=keep_image)
                if repeat:  # the first starts the processes
                    found[name].append(speed)
        threads, processes = (statistics.median(found[name]) for name in sides)
        print(
            f"{len(records)} photographs, image kept for later inputs: {keep_image}; "
            f"threads {threads:.1f}/s, processes {processes:.1f}/s, ratio {processes / threads:.3f}"
        )
    for decoder in sides.values():
        decoder.close()


if __name__ == "__main__":
    main()
