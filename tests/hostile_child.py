"""Reads the files named on standard input as shards, under limits; a line of JSON for each."""

import json
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from transforms.shards import parquet, tar, tfrecord

MEMORY_BYTES = 4 << 30
SECONDS_PER_FILE = 20


def reader_of(path: str) -> object:
    if "parquet" in path:
        return parquet
    return tfrecord if path.endswith(".tfrecord") else tar


def outcome(path: str) -> dict[str, object]:
    started = time.monotonic()
    reader = reader_of(path)
    with Path(path).open("rb") as file:
        records = list(reader.read(file))
        counted = reader.count(file)
    return {
        "path": path,
        "records": len(records),
        "counted": counted,
        "statuses": Counter(record.status for record in records),
        "unexplained": sum(record.status != "ok" and not record.error for record in records),
        "errors": sorted({record.error for record in records if record.error})[:3],
        "seconds": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if "--any-column" in sys.argv:  # so that pages are decoded where no column is named image
        parquet._columns = lambda schema: list(schema.names[:3])
    for line in sys.stdin:
        signal.alarm(SECONDS_PER_FILE)
        sys.stdout.write(json.dumps(outcome(line.rstrip("\n"))) + "\n")
        sys.stdout.flush()


main()
