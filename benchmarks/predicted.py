"""What --dry-run predicts against what labelling then takes, on real photographs.

    .venv/bin/python -m benchmarks.predicted [--data ../shared/data] [--repeats 5]

Each repeat calibrates, predicts by these costs, and labels the same photographs, in turn, for a
policy that loses at most 2 % and for the full network alone. Prints the section of RESULTS.md.
"""

import argparse
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.photographs import NAMES, adalabel, write_full_policy, write_networks

MAX_LOSS = "0.02"


def fitted(data: Path, work: Path) -> str:
    """Fit the policies below `work`; returns the networks file."""
    networks = str(write_networks(work / "networks.toml", data, NAMES))
    photos, table, costs = str(data / "photos" / "*.tar"), str(work / "table"), str(work / "c.json")
    adalabel("calibrate", "--networks", networks, "--input", photos, "--output", costs)
    adalabel("extract", "--networks", networks, "--input", photos, "--output", table)
    policy = str(work / "adaptive")
    adalabel(
        *("fit", "--table", table, "--costs", costs), *("--max-loss", MAX_LOSS, "--policy", policy)
    )
    write_full_policy(work / "full", Path(policy), Path(table))
    return networks


def compared(networks: str, photos: str, work: Path, name: str, repeat: int) -> dict[str, float]:
    """Predict, then label; seconds of both, and of the whole command."""
    costs = str(work / f"costs-{name}-{repeat}.json")
    adalabel("calibrate", "--networks", networks, "--input", photos, "--output", costs)
    classify = (
        *("classify", "--networks", networks, "--policy", str(work / name), "--input", photos),
        *("--output", str(work / f"labels-{name}-{repeat}")),
    )
    told: Any = adalabel(*classify, "--dry-run", "--costs", costs)
    done: Any = adalabel(*classify)
    return {
        "predicted": told["quotes"][0]["seconds"],
        "real": done["newly_labelled"] / done["images_per_second"],
        "whole": done["seconds"],
        "load": told["load_seconds"],
        "records": done["records"],
    }


def row(name: str, found: list[dict[str, float]]) -> str:
    """A line of the table: medians, and all ratios."""
    middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
    ratios = ", ".join(f"{one['real'] / one['predicted']:.2f}" for one in found)
    return (
        f"| {name} | {middle['records']:.0f} | {middle['predicted']:.1f} | {middle['real']:.1f} | "
        f"{ratios} | {middle['whole'] - middle['real']:.1f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("ADALABEL_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    data = options.data.absolute()
    photos = str(data / "photos" / "nips17-*.tar")
    with tempfile.TemporaryDirectory() as folder:
        networks = fitted(data, Path(folder))
        rows = [
            row(
                name,
                [compared(networks, photos, Path(folder), name, r) for r in range(options.repeats)],
            )
            for name in ("adaptive", "full")
        ]
    load = os.getloadavg()[0]
    print(
        f"`python -m benchmarks.predicted --repeats {options.repeats}`, {datetime.now(UTC).date()}:"
    )
    print(f"{describe_machine()}, load {load:.1f}.\n")
    print("| policy | photographs | predicted s | real s | real / predicted, each | start-up s |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
