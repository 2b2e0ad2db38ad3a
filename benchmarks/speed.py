"""Extraction against a plain PyTorch loop, and the adaptive run against what its costs predict.

    .venv/bin/python benchmarks/speed.py [--data ../shared/data] [--repeats 5]

Every comparison runs its sides in turn, `repeats` times, each in a process of its own, and reports
medians. Results go to benchmarks/RESULTS.md and benchmarks/results.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from policy.bundle import Bundle, read_bundle, write_bundle
from policy.rules import always
from policy.table_manifest import read_manifest

HERE = Path(__file__).parent
# Memory settings are the thing compared, so no side inherits them.
ENVIRONMENT = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
}
BIG = "mobilenet_v2_same"
MAX_LOSSES = (0.01, 0.02, 0.05)

NETWORKS = """
classes = "imagenet1k"
import_path = ["{folder}"]
"""
NETWORK = """
[[network]]
name    = "{name}"
model   = "{model}"
kwargs  = {kwargs}
weights = "{folder}/{weights}"
input   = {{ resize = [{side}, {side}], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""
SPECS = (
    ("mobilenet_v1_025", "mobilenet_v1", "{ alpha = 0.25 }", "mobilenet_v1_0.25_128", 128),
    ("mobilenet_v1_05", "mobilenet_v1", "{ alpha = 0.5 }", "mobilenet_v1_0.5_160", 160),
    (BIG, BIG, "{}", "mobilenet_v2", 224),
)


def write_networks(path: Path, data: Path, names: tuple[str, ...]) -> Path:
    """A networks file of the photographs' networks."""
    folder = (data / "networks").absolute()
    text = NETWORKS.format(folder=folder)
    for name, module, kwargs, weights, side in SPECS:
        if name in names:
            text += NETWORK.format(
                name=name,
                model=f"{module}:{module}",
                kwargs=kwargs,
                folder=folder,
                weights=f"{weights}.safetensors",
                side=side,
            )
    path.write_text(text)
    return path


def python(*arguments: str, **environment: str) -> Any:  # noqa: ANN401 - whatever it prints
    """Run a script or module in a process of its own; returns the JSON it prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(  # noqa: S603 - our own scripts
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        env=ENVIRONMENT | environment,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def adalabel(*arguments: str) -> Any:  # noqa: ANN401 - whatever it prints
    """Run one command of the product."""
    return python("-m", "launch.cli", *arguments, "--json")


def compare_extraction(data: Path, work: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each side over all photographs: networks loaded, decoded, run."""
    loop = ("benchmarks/plain_loop.py", "--data", str(data))
    networks = write_networks(work / "big.toml", data, (BIG,))
    seconds: dict[str, list[float]] = {}
    for repeat in range(repeats):
        sides = {
            "plain loop, 0 workers": python(*loop, "--workers", "0"),
            "plain loop, 2 workers": python(*loop, "--workers", "2"),
            "plain loop, 2 workers, channels last, memory kept": python(
                *loop, "--workers", "2", "--tuned", **KEPT
            ),
            "adalabel extract": adalabel(
                *("extract", "--networks", str(networks), "--topk", "5"),
                *("--input", str(data / "photos" / "*.tar")),
                *("--output", str(work / f"extracted{repeat}")),
            ),
        }
        for side, found in sides.items():
            seconds.setdefault(side, []).append(found["seconds"])
    return seconds


def compare_adaptive(data: Path, work: Path, repeats: int) -> list[dict[str, float]]:
    """Real against predicted speed-up over the big network alone, at several losses."""
    names = tuple(name for name, *_ in SPECS)
    networks = str(write_networks(work / "all.toml", data, names))
    photos, table, costs = str(data / "photos" / "*.tar"), str(work / "table"), work / "costs.json"
    adalabel("extract", "--networks", networks, "--input", photos, "--output", table)
    adalabel("calibrate", "--networks", networks, "--input", photos, "--output", str(costs))
    fit = ("fit", "--table", table, "--costs", str(costs))
    rates: dict[str, list[float]] = {}
    runs: dict[str, Any] = {}
    for loss in MAX_LOSSES:
        adalabel(*fit, "--max-loss", str(loss), "--policy", str(work / f"policy{loss}"))
    write_full_policy(work / "full", read_bundle(str(work / f"policy{MAX_LOSSES[0]}")), table)
    for repeat in range(repeats):
        for name in ("full", *(f"policy{loss}" for loss in MAX_LOSSES)):
            runs[name] = adalabel(
                *("classify", "--networks", networks, "--policy", str(work / name)),
                *("--input", photos, "--output", str(work / f"labels-{name}-{repeat}")),
            )
            rates.setdefault(name, []).append(runs[name]["images_per_second"])
    alone = statistics.median(rates["full"])
    return [
        {
            "max_loss": loss,
            "predicted": runs[f"policy{loss}"]["speedup"],
            "real": statistics.median(rates[f"policy{loss}"]) / alone,
            "images_per_second": statistics.median(rates[f"policy{loss}"]),
            "alone_images_per_second": alone,
        }
        for loss in MAX_LOSSES
    ]


def write_full_policy(folder: Path, bundle: Bundle, table: str) -> None:
    """The policy that labels every image with the big network."""
    policy = always(bundle.policy.graph, BIG)
    fingerprints = {BIG: read_manifest(table).networks[BIG].fingerprint}
    write_bundle(str(folder), Bundle(policy, bundle.class_names, fingerprints))


def describe_machine() -> str:
    """Processor, cores and versions, for the head of the results."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, fp32"


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    seconds = found["extraction_seconds"]
    ours = statistics.median(seconds["adalabel extract"])
    lines = [
        "# Results",
        "",
        f"Made by `benchmarks/speed.py` on {found['date']}: {found['machine']},",
        f"medians of {found['repeats']}. Ratios count; absolute times on this machine are noisy.",
        "",
        f"## Extraction of {BIG} over 1,000 photographs, networks loaded, answers stored",
        "",
        "| side | seconds (all runs) | median | adalabel is |",
        "|---|---|---|---|",
    ]
    for side, times in seconds.items():
        median = statistics.median(times)
        listed = ", ".join(f"{time:.1f}" for time in times)
        lines.append(f"| {side} | {listed} | {median:.1f} | {median / ours:.2f}x as fast |")
    lines += [
        "",
        f"## Adaptive labelling of the same photographs against {BIG} alone",
        "",
        "Predicted from calibrated costs (decoding included) and the exits taken;",
        "real is images/s while labelling.",
        "",
        "| max loss | predicted | real | real / predicted | images/s (alone) |",
        "|---|---|---|---|---|",
    ]
    for row in found["adaptive"]:
        lines.append(
            f"| {row['max_loss']:.0%} | {row['predicted']:.2f}x | {row['real']:.2f}x | "
            f"{row['real'] / row['predicted']:.2f} | {row['images_per_second']:.1f} "
            f"({row['alone_images_per_second']:.1f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("ADALABEL_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    data = options.data.absolute()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "repeats": options.repeats,
            "extraction_seconds": compare_extraction(data, Path(folder), options.repeats),
            "adaptive": compare_adaptive(data, Path(folder), options.repeats),
        }
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    (HERE / "RESULTS.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
