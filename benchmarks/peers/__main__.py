"""adalabel against its peers on the photographs, all in one run.

    .venv/bin/python -m benchmarks.peers.install .venv-peers     # once: timm and Ray
    .venv/bin/python -m benchmarks.peers --peers-python .venv-peers/bin/python

Prints peers/targets.py's ratios and all times; stores them beside this package in PEERS.md and
peers.json. Stops if two sides that do the same work give different labels.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import Machine, machine
from benchmarks.peers.page import page
from benchmarks.peers.prepare import MAX_LOSS, prepared
from benchmarks.peers.sides import OURS_FITTED, SIDES, Side
from benchmarks.peers.targets import findings
from benchmarks.peers.turns import Course, Done, take_turns

HERE = Path(__file__).parents[1]


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks.peers", description=(__doc__ or "").split("\n")[0])
    default = os.environ.get("ADALABEL_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--images", type=int, default=1000, help="rounded up to whole shards")
    parser.add_argument("--only", nargs="*", default=[], help="parts of sides' names")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the tuned sides; give adalabel's own with --adalabel",
    )
    parser.add_argument("--adalabel", default="", help="more flags of ours, as one text")
    parser.add_argument("--peers-python", default="", help="a Python that has timm and Ray")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the two files")
    return parser.parse_args(arguments)


def chosen(only: Sequence[str], peers_python: str) -> tuple[Side, ...]:
    """The sides that can run and were asked for."""
    able = [side for side in SIDES if peers_python or not side.needs]
    return tuple(side for side in able if not only or any(part in side.name for part in only))


def store(options: argparse.Namespace, before: Machine, done: dict[str, list[Done]]) -> str:
    """Write both files; the page."""
    runs = {name: [each.run for each in side] for name, side in done.items()}
    fitted = done.get(OURS_FITTED.name, [])
    predicted = statistics.median(each.predicted or 0.0 for each in fitted) if fitted else None
    found = findings(runs, predicted)
    date, images = datetime.now(UTC).date().isoformat(), next(iter(runs.values()))[0].images
    flags = f"adalabel's further flags: {options.adalabel or 'none'}"
    head = [
        (
            f"Made by `python -m benchmarks.peers` on {date}, {options.repeats} turns over {images}"
            f" images; tuned sides in {options.precision}; {flags}. {before.text()}."
        )
    ]
    if predicted:
        head.append(
            f"The fitted cascade (at most {MAX_LOSS:.0%} lost) is {predicted:.2f} times as fast as "
            "the big network alone by its calibrated costs and the exits taken."
        )
    if not options.peers_python:
        head.append("timm and Ray Data did not run: no --peers-python was given.")
    stored = {
        "date": date,
        "machine": asdict(before),
        "precision": options.precision,
        "adalabel_flags": options.adalabel,
        "predicted": predicted,
        "findings": [asdict(finding) for finding in found],
        "sides": {name: [asdict(run) for run in side] for name, side in runs.items()},
    }
    text = page(head, runs, {side.name: side.peer for side in SIDES}, found)
    (options.output / "peers.json").write_text(json.dumps(stored, indent=1) + "\n")
    (options.output / "PEERS.md").write_text(text)
    return text


def main() -> None:
    """Prepare, take turns, store, print."""
    options = options_of()
    sides = chosen(options.only, options.peers_python)
    if not sides:
        sys.exit(f"--only {options.only}: no side; there are {[side.name for side in SIDES]}")
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        flags = tuple(options.adalabel.split())
        world = prepared(options.data.absolute(), Path(folder), options.images, flags)
        course = Course(sides, options.repeats, options.precision, options.peers_python)
        done = take_turns(world, course)
    print(store(options, before, done))


if __name__ == "__main__":
    main()
