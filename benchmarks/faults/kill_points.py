"""Every file operation of a run disturbed in every way; what a reader and a re-run then see."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.faults import readers
from benchmarks.faults.children import BROKEN, Ended, command, in_child
from benchmarks.faults.injector import KILLS, NONE, Fault, arm, faults_for, operations
from benchmarks.faults.scenarios import Scenario, copy_of, make_world

KILLED, UNAVAILABLE = -9, 5


@dataclass
class Tally:
    """What came of the faults of a scenario; `problems` say what went wrong, one each."""

    name: str
    operations: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """A scenario made ready: what was there before it, and what comes of it undisturbed."""

    scenario: Scenario
    folder: Path
    operations: tuple[str, ...]
    old: readers.Result | None
    new: readers.Result

    @property
    def output(self) -> Path:
        """Where every disturbed run writes."""
        return self.folder / "output"

    def arguments(self) -> list[str]:
        """The command that is disturbed."""
        return [*self.scenario.command(self.folder), "--output", str(self.output)]

    def reset(self) -> None:
        """Put back what was there before."""
        shutil.rmtree(self.output, ignore_errors=True)
        copy_of(self.folder / "before", self.output)


class UnfitError(Exception):
    """A scenario that does not work without faults, or not the same way twice."""


def staged(scenario: Scenario, folder: Path) -> Stage:
    """Make a scenario ready; raises UnfitError unless two undisturbed runs do the same."""
    folder.mkdir()
    before, log = folder / "before", folder / "log"
    _must(in_child(lambda: _nothing(make_world(folder)), log))
    for make in scenario.before:
        _must(in_child(command([*make(folder), "--output", str(before)]), log))
    scenario.change(folder)
    stage = Stage(scenario, folder, (), readers.result(before), {})
    traces = []
    for _ in range(2):
        stage.reset()
        _must(in_child(_disturbed(stage, 0, NONE, folder / "trace"), log))
        traces.append(operations(folder / "trace"))
    if traces[0] != traces[1]:
        pairs = enumerate(zip(*traces, strict=False))
        first = next(((n, a, b) for n, (a, b) in pairs if a != b), None)
        raise UnfitError(f"two undisturbed runs differ in their operations: {first}")
    new = readers.result(stage.output)
    if new is None or new == stage.old:
        raise UnfitError("the run makes no new result")
    return Stage(scenario, folder, tuple(traces[0]), stage.old, new)


def every(stage: Stage, step: int) -> Iterator[tuple[int, Fault]]:
    """All faults, or with a step of more than one, every n-th of them, of all kinds in turn."""
    found = [
        (number, fault)
        for number, operation in enumerate(stage.operations, 1)
        for fault in faults_for(operation)
    ]
    yield from found[::step]


def disturb(stage: Stage, number: int, fault: Fault, tally: Tally) -> None:
    """One fault, then a reader, then the same command again."""
    where = f"{stage.scenario.name}, {number} ({stage.operations[number - 1]}) {fault.name}"
    stage.reset()
    ended = in_child(_disturbed(stage, number, fault), stage.folder / "log")
    tally.counts["injected"] += 1
    problems = [*_wrong_end(stage, ended, fault), *_seen(stage, ended, tally)]
    problems += _again(stage, tally)
    tally.counts["survived"] += not problems
    tally.problems += [f"{where}: {problem}" for problem in problems]


def disturb_twice(stage: Stage, rng: np.random.Generator, tally: Tally) -> None:
    """Kill a run anywhere, then the run after it anywhere, then run a third time."""
    stage.reset()
    where = f"{stage.scenario.name}, twice"
    for _ in range(2):
        number = int(rng.integers(1, len(stage.operations) + 1))
        fault = KILLS[int(rng.integers(len(KILLS)))]
        where += f", {number} {fault.name}"
        ended = in_child(_disturbed(stage, number, fault), stage.folder / "log")
    tally.counts["injected"] += 1
    problems = [*_seen(stage, ended, tally), *_again(stage, tally)]
    tally.counts["survived"] += not problems
    tally.problems += [f"{where}: {problem}" for problem in problems]


def _nothing(_: None) -> int:
    return 0


def _must(ended: Ended) -> None:
    if ended.code:
        raise UnfitError(f"exit code {ended.code} without any fault: {ended.text[-2000:]}")


def _disturbed(
    stage: Stage, number: int, fault: Fault, trace: Path | None = None
) -> Callable[[], int]:
    def run() -> int:
        arm(stage.output, number, fault, trace)
        return command(stage.arguments())()

    return run


def _wrong_end(stage: Stage, ended: Ended, fault: Fault) -> Iterator[str]:
    """A run that is not killed ends well, or with 5 and a message that names a file."""
    if not fault.error:
        if ended.code != KILLED:
            yield f"was not killed, exit code {ended.code}: {ended.text[-300:]}"
        return
    last = ended.text.rstrip().rpartition("\n")[2]  # Beam tells of a worker's error before that
    if ended.code == BROKEN:
        yield f"ends with a traceback: {ended.text[-600:]}"
    elif ended.code not in (0, UNAVAILABLE):
        yield f"exit code {ended.code}: {last}"
    elif ended.code and str(stage.output) not in last:
        yield f"names no file: {last}"


def _seen(stage: Stage, ended: Ended, tally: Tally) -> list[str]:
    """What is wrong for those who read before anybody runs again."""
    found: list[str] = []

    def look() -> int:
        readers.check_files(stage.output)
        readers.check_markers(stage.output)
        result = readers.result(stage.output)
        if ended.code == 0 and result != stage.new:
            raise readers.TornError("exit code 0 without the new result")
        if result not in (stage.old, stage.new):
            raise readers.TornError("neither the old result nor the new one")
        return 0

    try:
        look()
    except (readers.TornError, json.JSONDecodeError) as error:
        tally.counts["torn reads"] += 1
        found.append(f"torn read: {error}")
    return found


def _again(stage: Stage, tally: Tally) -> list[str]:
    """What is wrong after the same command was run again, undisturbed."""
    ended = in_child(command(stage.arguments()), stage.folder / "log")
    if ended.code:
        return [f"the run after it ends with {ended.code}: {ended.text[-600:]}"]
    try:
        readers.check_files(stage.output)
        readers.check_markers(stage.output)
        found = readers.result(stage.output) or {}
    except (readers.TornError, json.JSONDecodeError) as error:
        tally.counts["torn reads"] += 1
        return [f"the run after it leaves a torn result: {error}"]
    lost, twice = readers.lost_and_twice(found, stage.new)
    tally.counts["lost"] += lost
    tally.counts["duplicated"] += twice
    problems = [] if found == stage.new else [f"another result: {lost} lost, {twice} twice"]
    left = readers.leftovers(stage.output)
    return problems + ([f"left behind: {left}"] if left else [])
