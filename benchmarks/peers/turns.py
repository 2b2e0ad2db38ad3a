"""Running sides in turn, each run in a process of its own."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.corpus import true_labels
from benchmarks.peers.job import Job, as_text
from benchmarks.peers.labels import accuracy, check_agreement, read_labels
from benchmarks.peers.prepare import World
from benchmarks.peers.results import Run
from benchmarks.peers.sides import CUT, FITTED, NONE, Side
from benchmarks.photographs import ENVIRONMENT, ROOT, cli

LONGEST_SECONDS = 1800
"""Of a process; a peer that hangs must not keep the others waiting for ever."""


@dataclass(frozen=True)
class Course:
    """Who takes part, how often, in which precision where tuned, and whose Python runs (d)."""

    sides: tuple[Side, ...]
    repeats: int
    precision: str
    peers_python: str


@dataclass(frozen=True)
class Done:
    """A run, its labels, and the speed-up by costs where the side is ours."""

    run: Run
    labels: dict[str, int]
    predicted: float | None


def take_turns(world: World, course: Course) -> dict[str, list[Done]]:
    """All sides once a turn, each turn beginning with another one; refuses unequal work."""
    truth = {name: true_labels(world.folder / name) for name in {s.corpus for s in course.sides}}
    done: dict[str, list[Done]] = {side.name: [] for side in course.sides}
    for turn in range(course.repeats):
        first = turn * len(course.sides) // course.repeats
        labels: dict[str, dict[str, Mapping[str, int]]] = defaultdict(dict)
        for side in (*course.sides[first:], *course.sides[:first]):
            output = Path(tempfile.mkdtemp(prefix=f"labels-{turn}-", dir=world.folder))
            found = run_of(side, world, course, output, truth[side.corpus])
            done[side.name].append(found)
            labels[side.work][side.name] = found.labels
            print(f"turn {turn + 1}: {side.name}: {found.run}", file=sys.stderr, flush=True)
        for work, given in labels.items():
            if work != NONE:
                check_agreement(given)
    return done


def run_of(
    side: Side, world: World, course: Course, output: Path, truth: Mapping[str, int]
) -> Done:
    """One run, from before its process starts until after it has ended."""
    command = command_of(side, world, course, output)
    load, before, started = os.getloadavg()[0], _cpu_seconds(), time.monotonic()
    said = _said_by(command)
    whole, cpu = time.monotonic() - started, _cpu_seconds() - before
    images, seconds = _work(side, said)
    labels = read_labels(output) if side.work != NONE else {}
    right = accuracy(labels, truth, side.name) if side.work != NONE else None
    return Done(Run(images, seconds, whole, cpu, load, right), labels, said.get("speedup"))


def command_of(side: Side, world: World, course: Course, output: Path) -> list[str]:
    """What is run; our own sides audit nothing, as no other does."""
    networks, shards = str(world.networks(side)), world.folder / side.corpus
    if side.program == "adalabel":
        return cli(
            *("classify", "--networks", networks, "--audit-fraction", "0"),
            *("--input", str(shards / "*.tar"), "--policy", str(world.policy(side.work))),
            *("--output", str(output), *world.flags),
        )
    policy = str(world.policy(side.work)) if side.work in (FITTED, CUT) else ""
    told = {"policy": policy, "precision": course.precision, **side.told}
    job = Job(str(world.data), str(shards), str(output), networks, **told)
    python = course.peers_python if side.needs else sys.executable
    return [python, "-m", f"benchmarks.peers.{side.program}", as_text(job)]


def _work(side: Side, said: Mapping[str, Any]) -> tuple[int, float]:
    """Images and seconds, from a side's own words."""
    if side.program != "adalabel":
        return said["images"], said["seconds"]
    return said["newly_labelled"], said["newly_labelled"] / said["images_per_second"]


def _said_by(command: Sequence[str]) -> dict[str, Any]:
    """The JSON that a process prints last."""
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=LONGEST_SECONDS,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    lines = done.stdout.splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("{"))
    said: dict[str, Any] = json.loads("\n".join(lines[last:]))
    return said


def _cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
