"""Disturbs runs of extract and classify at each of their file operations; prints what came of it.

python -m benchmarks.faults [--every N] [--doubles N] [--only PART-OF-A-NAME]
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.faults.injector import compiler, is_preloaded, preloaded
from transforms import at_once

COLUMNS = ("injected", "survived", "torn reads", "lost", "duplicated")


def main() -> int:
    """Start again with the library before libc; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th fault")
    parser.add_argument("--doubles", type=int, default=200, help="runs that are killed twice")
    parser.add_argument("--only", default="", help="scenarios whose name has this")
    options = parser.parse_args()
    if compiler() is None:
        print("no C compiler (cc), or not Linux: nothing can be put before libc")
        return 1
    if is_preloaded():
        return _run(options)
    with tempfile.TemporaryDirectory() as folder:
        return preloaded(Path(folder), ["-m", "benchmarks.faults", *sys.argv[1:]]).wait()


def _run(options: argparse.Namespace) -> int:
    # loaded after the new start, and once, so that a child of this process starts in no time
    for command in ("classify", "extract"):
        importlib.import_module(f"pipelines.{command}")
    at_once._THREADS = 1  # noqa: SLF001 - operations are counted, so their order must be the same
    from benchmarks.faults.kill_points import (  # noqa: PLC0415
        Tally,
        disturb,
        disturb_twice,
        every,
        staged,
    )
    from benchmarks.faults.scenarios import SCENARIOS  # noqa: PLC0415

    names = [name for name in SCENARIOS if options.only in name]
    problems = []
    print(f"| run | file operations | {' | '.join(COLUMNS)} | seconds |")
    print("|---|" + "---|" * (len(COLUMNS) + 2))
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            start, rng = time.monotonic(), np.random.default_rng(number)
            stage = staged(SCENARIOS[name], Path(folder) / str(number))
            tally, doubles = Tally(name), Tally(f"{name}, killed twice")
            for point, fault in every(stage, options.every):
                disturb(stage, point, fault, tally)
            _print(tally.name, tally.counts, len(stage.operations), start)
            start = time.monotonic()
            for _ in range(options.doubles // len(names)):
                disturb_twice(stage, rng, doubles)
            _print(doubles.name, doubles.counts, len(stage.operations), start)
            problems += tally.problems + doubles.problems
            for problem in tally.problems + doubles.problems:
                sys.stderr.write(f"{problem}\n\n")
    return 1 if problems else 0


def _print(name: str, found: Mapping[str, int], operations: int, start: float) -> None:
    if found["injected"]:
        counts = " | ".join(str(found[column]) for column in COLUMNS)
        row = f"| {name} | {operations} | {counts} | {time.monotonic() - start:.0f} |"
        print(row, flush=True)


if __name__ == "__main__":
    sys.exit(main())
