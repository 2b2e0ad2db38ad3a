"""Disturbs publishing and rolling back at each file operation; prints what became of CURRENT.

python -m benchmarks.faults.policies [--every N]
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.children import BROKEN, Ended, command, in_child
from benchmarks.faults.injector import (
    NONE,
    Fault,
    arm,
    compiler,
    faults_for,
    is_preloaded,
    operations,
    preloaded,
)
from pipelines.registry import open_registry
from policy.errors import Damaged, InputError
from transforms.chain import POINTER

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import tiny_policies

COLUMNS = ("injected", "old", "new", "survived")
KILLED, UNAVAILABLE = -9, 5


@dataclass(frozen=True)
class Case:
    """A command that moves CURRENT of a registry of `before` versions from `old` to `new`."""

    name: str
    before: int
    old: int | None
    new: int
    words: tuple[str, ...]


CASES = (
    Case("publish the first", 0, None, 1, ("policy", "publish", "--policy", "1")),
    Case("publish another", 2, 2, 3, ("policy", "publish", "--policy", "3")),
    Case("rollback", 3, 3, 2, ("policy", "rollback", "--to", "2")),
)


@dataclass(frozen=True)
class Bench:
    """Where a case happens: `registry` is put back from `before` each time."""

    case: Case
    world: Path
    trace: tuple[str, ...] = ()

    @property
    def registry(self) -> Path:
        """What is disturbed."""
        return self.world / "registry"

    def reset(self) -> None:
        """Put back what was there before."""
        shutil.rmtree(self.registry, ignore_errors=True)
        shutil.copytree(self.world / "before", self.registry)

    def run(self, number: int, fault: Fault, trace: Path | None = None) -> Ended:
        """The command, disturbed at an operation."""

        def work() -> int:
            arm(self.registry, number, fault, trace)
            return self.command()()

        return in_child(work, self.world / "log")

    def command(self) -> Callable[[], int]:
        """The command, undisturbed."""
        policies = [str(self.world / word) if word.isdigit() else word for word in self.case.words]
        words = list(self.case.words) if "rollback" in self.case.words else policies
        return command([*words, "--registry", str(self.registry)])

    def current(self) -> int | None:
        """What a reader finds to be CURRENT, with all of its files checked."""
        registry = open_registry(str(self.registry))
        version = registry.current()
        if version is not None:
            registry.read(version)
        registry.history()
        return version.number if version else None


def main() -> int:
    """Start again with the library before libc; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults.policies", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th fault")
    options = parser.parse_args()
    if compiler() is None:
        print("no C compiler (cc), or not Linux: nothing can be put before libc")
        return 1
    if is_preloaded():
        return _run(options.every)
    with tempfile.TemporaryDirectory() as folder:
        return preloaded(Path(folder), ["-m", "benchmarks.faults.policies", *sys.argv[1:]]).wait()


def _run(every: int) -> int:
    problems: list[str] = []
    print(f"| run | file operations | {' | '.join(COLUMNS)} | seconds |")
    print("|---|" + "---|" * (len(COLUMNS) + 2))
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            start, bench = time.monotonic(), _staged(case, Path(folder) / case.name)
            counts = Counter[str]()
            for number, fault in _faults(bench.trace, every):
                problems += _disturb(bench, number, fault, counts)
            row = " | ".join(str(counts[column]) for column in COLUMNS)
            seconds = time.monotonic() - start
            print(f"| {case.name} | {len(bench.trace)} | {row} | {seconds:.0f} |", flush=True)
    for problem in problems:
        sys.stderr.write(f"{problem}\n\n")
    return 1 if problems else 0


def _staged(case: Case, world: Path) -> Bench:
    """Make a case ready, and see which operations it does undisturbed."""
    bench = Bench(case, world)
    (world / "before").mkdir(parents=True)
    for number in range(1, 4):
        folder = tiny_policies.write(world / str(number), number / 10)
        words = ["policy", "publish", "--policy", folder, "--registry", str(world / "before")]
        if number <= case.before:
            in_child(command(words), world / "log")
    bench.reset()
    ended = bench.run(0, NONE, world / "trace")
    if ended.code or bench.current() != case.new:
        raise RuntimeError(f"{case.name}: exit code {ended.code} without a fault: {ended.text}")
    return Bench(case, world, tuple(operations(world / "trace")))


def _faults(trace: tuple[str, ...], every: int) -> Iterator[tuple[int, Fault]]:
    found = [(n, fault) for n, operation in enumerate(trace, 1) for fault in faults_for(operation)]
    yield from found[::every]


def _disturb(bench: Bench, number: int, fault: Fault, counts: Counter[str]) -> list[str]:
    """One fault, then a reader, then the same command again; what went wrong."""
    bench.reset()
    ended = bench.run(number, fault)
    counts["injected"] += 1
    found = [*_wrong_end(bench, ended, fault), *_seen(bench, ended, counts), *_again(bench)]
    counts["survived"] += not found
    where = f"{bench.case.name}, {number} ({bench.trace[number - 1]}) {fault.name}"
    return [f"{where}: {problem}" for problem in found]


def _wrong_end(bench: Bench, ended: Ended, fault: Fault) -> Iterator[str]:
    last = ended.text.rstrip().rpartition("\n")[2]
    if not fault.error and ended.code != KILLED:
        yield f"was not killed, exit code {ended.code}: {last}"
    if fault.error and ended.code == BROKEN:
        yield f"ends with a traceback: {ended.text[-600:]}"
    elif fault.error and ended.code not in (0, UNAVAILABLE):
        yield f"exit code {ended.code}: {last}"
    elif fault.error and ended.code and str(bench.registry) not in last:
        yield f"names no file: {last}"


def _seen(bench: Bench, ended: Ended, counts: Counter[str]) -> Iterator[str]:
    """What is wrong for those who read before anybody runs again."""
    case = bench.case
    try:
        found = bench.current()
    except (Damaged, InputError, OSError) as error:
        yield f"cannot be read: {error}"
        return
    counts["old"] += found == case.old
    counts["new"] += found == case.new
    if found not in (case.old, case.new) or (ended.code == 0 and found != case.new):
        yield f"CURRENT is {found}, after exit code {ended.code}"


def _again(bench: Bench) -> Iterator[str]:
    """What is wrong after the same command was run again, undisturbed."""
    was = bench.current()
    ended = in_child(bench.command(), bench.world / "log")
    done_before = was == bench.case.new and "rollback" in bench.case.words
    if ended.code and not (done_before and "is CURRENT already" in ended.text):
        yield f"the run after it ends with {ended.code}: {ended.text[-600:]}"
    if bench.current() != bench.case.new or not (bench.registry / POINTER).exists():
        yield f"after the run after it CURRENT is {bench.current()}"
    steps = len(open_registry(str(bench.registry)).history())
    if steps != bench.case.before + 1:
        yield f"{steps} steps, wanted {bench.case.before + 1}"
    if not done_before and (bench.registry / "_attempts").exists():
        yield "left behind: _attempts"


if __name__ == "__main__":
    sys.exit(main())
