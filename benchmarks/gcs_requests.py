"""Requests to gs:// for each shard of a classify run, by kind; against the emulator, counted.

    tests/gcs/install; python -m benchmarks.gcs_requests [--shards 200] [--milliseconds 20]

`--milliseconds` is how long each answer is kept back, as the service's way would.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402 - tests' helpers
from gcs.front import before  # noqa: E402
from google.cloud.storage import Client  # noqa: E402

from launch.cli import main  # noqa: E402

_PORT = 9023


@contextmanager
def emulator() -> Iterator[str]:
    """The emulator's host and port."""
    server = next((ROOT / "tests/gcs/bin").glob("fake-gcs-server-*"))
    address = f"127.0.0.1:{_PORT}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(_PORT), "-backend", "memory"]
    flags += ["-public-host", address, "-log-level", "error"]
    running = subprocess.Popen([server, *flags])  # noqa: S603 - our own
    time.sleep(1)
    try:
        yield address
    finally:
        running.kill()
        running.wait()


def corpus(folder: Path, shards: int) -> None:
    """Labelled images, a policy for them, and so many shards of two images each in gs://corpus."""
    rng = np.random.default_rng(0)
    tiny.write_networks(folder)
    tiny.write_tar(folder / "labelled.tar", tiny.image_members(rng, 400))
    table, policy = f"{folder}/table", f"{folder}/policy"
    words = ["extract", "--networks", f"{folder}/networks.toml"]
    if main([*words, "--input", f"{folder}/labelled.tar", "--output", table]):
        sys.exit("extract failed")
    if main(["fit", "--table", table, "--policy", policy, "--max-loss", "0.5"]):
        sys.exit("fit failed")
    bucket = Client().create_bucket("corpus")
    for number in range(shards):
        path = tiny.write_tar(folder / "shard.tar", tiny.image_members(rng, 2))
        bucket.blob(f"{number:04d}.tar").upload_from_string(path.read_bytes())


def measure() -> None:
    """Run, and print one row of a table for each kind of run."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--shards", type=int, default=200)
    given.add_argument("--milliseconds", type=float, default=20)
    asked = given.parse_args()
    with emulator() as address, before(address) as front, tempfile.TemporaryDirectory() as name:
        os.environ["STORAGE_EMULATOR_HOST"] = front.url
        folder = Path(name)
        corpus(folder, asked.shards)
        words = ["classify", "--networks", f"{folder}/networks.toml", "--policy"]
        words += [f"{folder}/policy", "--input", "gs://corpus/*.tar", "--output", "gs://corpus/out"]
        for mode in ("resume", "resume", "overwrite"):
            front.tell(forget=True, delay=asked.milliseconds / 1000)
            start = time.monotonic()
            if main([*words, "--mode", mode]):
                sys.exit("classify failed")
            seconds = time.monotonic() - start
            told = front.tell(delay=0)
            counts = {kind: n / asked.shards for kind, n in sorted(told["requests"].items())}
            each = ", ".join(f"{kind} {n:.2f}" for kind, n in counts.items())
            print(
                f"| {mode} | {sum(counts.values()):.2f} | {each} "
                f"| {told['connections'] / asked.shards:.2f} | {seconds:.1f} |"
            )


if __name__ == "__main__":
    measure()
