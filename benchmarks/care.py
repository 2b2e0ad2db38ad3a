"""What care costs: labelling the photographs with this checkout against an earlier one.

    git worktree add ../before COMMIT
    .venv/bin/python -m benchmarks.care --before ../before [--data ../shared/data] [--repeats 5]

Both sides run in turn with the same networks and the same policy, fitted by the earlier one, each
run in a process of its own. Reported are medians of the rate while labelling, of the processor time
of the whole run, and of the ratio of each pair of runs.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.photographs import ENVIRONMENT, NAMES, write_networks

HERE = Path(__file__).parent.parent
POLICIES = {"adaptive": ("--max-loss", "0.05"), "smallest": ("--max-loss", "1.0")}
COPIES = 1
"""How often the photographs are labelled in a run, under other names."""


def adalabel(checkout: Path, *arguments: str) -> tuple[Any, float]:
    """Run one command of a checkout; its receipt, and the processor seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", "launch.cli", *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=checkout,
        env=ENVIRONMENT,
    )
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(arguments)}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), used


def prepared(before: Path, data: Path, work: Path) -> tuple[str, str]:
    """The networks file and the glob of the photographs' copies; fits the policies."""
    networks = str(write_networks(work / "all.toml", data, NAMES))
    photos, table, costs = str(data / "photos" / "*.tar"), str(work / "table"), work / "costs.json"
    adalabel(before, "extract", "--networks", networks, "--input", photos, "--output", table)
    flags = ("--networks", networks, "--input", photos, "--output", str(costs))
    adalabel(before, "calibrate", *flags)
    for name, wanted in POLICIES.items():
        flags = ("--table", table, "--costs", str(costs), "--no-exits", *wanted)
        adalabel(before, "fit", *flags, "--policy", str(work / name))
    for copy in range(COPIES):
        for shard in (data / "photos").glob("*.tar"):
            (work / "corpus").mkdir(exist_ok=True)
            (work / "corpus" / f"{copy}-{shard.name}").write_bytes(shard.read_bytes())
    return networks, str(work / "corpus" / "*.tar")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flags", nargs="*", default=[], help="more flags of this checkout's run")
    options = parser.parse_args()
    sides = {"before": options.before.absolute(), "now": HERE}
    print(describe_machine())
    print("| policy | images/s before | now | now/before | CPU s before | now | now/before |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        networks, corpus = prepared(sides["before"], options.data.absolute(), work)
        for policy in POLICIES:
            found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
            for repeat in range(options.repeats):
                order = list(sides) if repeat % 2 else list(sides)[::-1]
                for side in order:
                    output = str(work / f"{policy}-{side}-{repeat}")
                    flags = ["--networks", networks, "--policy", str(work / policy)]
                    flags += ["--input", corpus, "--output", output]
                    flags += options.flags if side == "now" else []
                    receipt, used = adalabel(sides[side], "classify", *flags)
                    found[side].append((receipt["images_per_second"], used))
            cells = [policy]
            for number in (0, 1):
                old, new = ([run[number] for run in found[side]] for side in sides)
                ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
                cells += [f"{statistics.median(old):.1f}", f"{statistics.median(new):.1f}"]
                cells.append(f"{ratio:.3f}")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
