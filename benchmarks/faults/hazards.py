"""What else happens to a run: processes killed or hanging, no memory, no room, odd clocks.

python -m benchmarks.faults.hazards [--only PART-OF-A-NAME …]
"""

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import readers
from benchmarks.faults.scenarios import classify, make_world

SHARDS, RECORDS = 12, 100
WAIT_SECONDS = 120.0

_WITH_CLOCK = """
import itertools, sys, time
real, jumps = time.time, itertools.cycle({jumps})
time.time = lambda: {clock}
from launch.cli import main
sys.exit(main(sys.argv[1:]))
"""
_JUMPING = _WITH_CLOCK.format(jumps=[0, 5 * 3600, -7 * 3600], clock="real() + next(jumps)")
_STANDING = _WITH_CLOCK.format(jumps=[0], clock="1.8e9")

Run = subprocess.Popen[str]


@dataclass(frozen=True)
class Bench:
    """Where hazards happen: a world, and the result that all must come to."""

    world: Path
    wanted: readers.Result
    output: Path

    def start(
        self,
        *more: str,
        output: Path | None = None,
        program: tuple[str, ...] = ("-m", "launch.cli"),
        first: Callable[[], None] | None = None,
    ) -> Run:
        """Start the command; `first` is done in its process before anything else."""
        arguments = [*classify("cheap")(self.world), "--output", str(output or self.output), *more]
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, *program, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=first,  # noqa: PLW1509 - no threads here
        )


def ended(run: Run) -> str:
    """How a run ended, with the last line it printed if not well; one that hangs is killed."""
    try:
        _, text = run.communicate(timeout=WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        run.kill()
        run.communicate()
        return f"HANGS, killed after {WAIT_SECONDS:.0f} s"
    if not run.returncode:
        return "exit code 0"
    if run.returncode < 0:
        return f"ended by {signal.Signals(-run.returncode).name}"
    last = (text.strip() or "-").splitlines()[-1]
    return f"exit code {run.returncode}: {last}".replace("|", "/")


def until_some_are_done(bench: Bench, run: Run) -> None:
    """Wait until the run is in the middle of its work."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(list(bench.output.glob("s*.json"))) < 2 and run.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.002)


def workers_of(run: Run) -> list[int]:
    """The processes that a run has started, and those that they have."""
    found, waiting = [], [run.pid]
    while waiting:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children = [int(child) for child in task.read_text().split()]
            found += children
            waiting += children
    return found


def worker_killed(bench: Bench) -> str:
    """SIGKILL to one of two workers in the middle."""
    run = bench.start("--workers", "2")
    until_some_are_done(bench, run)
    workers = [pid for pid in workers_of(run) if "sdk_worker" in _command(pid)]
    _signal(workers[-1], signal.SIGKILL)
    how = ended(run)
    for pid in workers:
        _signal(pid, signal.SIGKILL)
    return how


def _command(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_text() if path.exists() else ""


def _signal(pid: int, number: signal.Signals) -> None:
    subprocess.run(["/bin/kill", f"-{number.value}", str(pid)], check=False, capture_output=True)  # noqa: S603


def launcher_killed(bench: Bench) -> str:
    """SIGKILL to the launcher of two workers."""
    run = bench.start("--workers", "2")
    until_some_are_done(bench, run)
    workers = workers_of(run)
    run.kill()
    how = ended(run)
    time.sleep(2)
    left = [pid for pid in workers if "sdk_worker" in _command(pid)]
    return f"{how}; {len(left)} of {len(workers)} processes still there after 2 s"


def terminated(bench: Bench) -> str:
    """SIGTERM in the middle."""
    run = bench.start()
    until_some_are_done(bench, run)
    run.terminate()
    return ended(run)


def stopped_for_good(bench: Bench) -> str:
    """SIGSTOP, then another run comes, then SIGKILL."""
    run = bench.start()
    until_some_are_done(bench, run)
    run.send_signal(signal.SIGSTOP)
    other = ended(bench.start())
    run.kill()
    return f"the other run: {other}; the first: {ended(run)}"


def stopped_for_a_while(bench: Bench) -> str:
    """SIGSTOP, and SIGCONT 3 s later."""
    run = bench.start()
    until_some_are_done(bench, run)
    run.send_signal(signal.SIGSTOP)
    time.sleep(3)
    run.send_signal(signal.SIGCONT)
    return ended(run)


def no_memory(bench: Bench) -> str:
    """A memory cgroup with 85 % of what the run needs, or where there is none, RLIMIT_AS."""
    group = Path(f"/sys/fs/cgroup/memory/adalabel-faults-{bench.world.name}")
    try:
        group.mkdir()
    except OSError:
        limits = (2**31, 2**31)
        how = ended(bench.start(first=lambda: resource.setrlimit(resource.RLIMIT_AS, limits)))
        return f"RLIMIT_AS of 2 GiB: {how}"
    join = group / "cgroup.procs"
    try:
        ended(bench.start(output=bench.world / "elsewhere", first=lambda: _join(join)))
        most = int((group / "memory.max_usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(int(most * 0.85)))
        how = ended(bench.start(first=lambda: _join(join)))
        return f"of {most / 1e6:.0f} MB: {how}"
    finally:
        group.rmdir()


def _join(group: Path) -> None:
    group.write_text("0")


def full_disk(bench: Bench) -> str:
    """A tmpfs of 64 KiB; then it grows."""
    bench.output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(bench.output)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: S603
        return "not tried: no tmpfs can be mounted here"
    how = ended(bench.start())
    grow = ["mount", "-o", "remount,size=64m", str(bench.output)]
    subprocess.run(grow, check=True)  # noqa: S603
    return how


def few_handles(bench: Bench) -> str:
    """64 file handles."""
    limits = (64, 64)
    return ended(bench.start(first=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)))


def clock_jumps(bench: Bench) -> str:
    """time.time jumps by hours, back and forth, at each call."""
    return ended(bench.start(program=("-c", _JUMPING)))


def bundles_repeated(bench: Bench) -> str:
    """Every bundle is run twice."""
    return ended(bench.start("--", "--direct_runner_bundle_repeat=1"))


def two_at_once(bench: Bench) -> str:
    """Two runs started together into one output."""
    runs = [bench.start(), bench.start()]
    return "; ".join(sorted(ended(run) for run in runs))


def same_second(bench: Bench) -> str:
    """A run that is killed, and two after it, all in one second by a clock that stands."""
    run = bench.start(program=("-c", _STANDING))
    until_some_are_done(bench, run)
    run.kill()
    hows = [ended(run), *(ended(bench.start(program=("-c", _STANDING))) for _ in range(2))]
    return "; ".join(hows)


HAZARDS: Mapping[str, Callable[[Bench], str]] = {
    "one of two workers killed": worker_killed,
    "launcher of two workers killed": launcher_killed,
    "SIGTERM": terminated,
    "hangs (SIGSTOP), then SIGKILL": stopped_for_good,
    "hangs 3 s, goes on": stopped_for_a_while,
    "memory cgroup, 85 % of the need": no_memory,
    "full disk (tmpfs of 64 KiB)": full_disk,
    "64 file handles": few_handles,
    "clock jumps hours at every look": clock_jumps,
    "every bundle run twice": bundles_repeated,
    "two runs at once": two_at_once,
    "three runs in one second": same_second,
}


def again(bench: Bench) -> tuple[bool, str]:
    """Whether the same command run again ends equal to the undisturbed run, and how it ended."""
    how = ended(bench.start())
    found = readers.result(bench.output) or {}
    lost, twice = readers.lost_and_twice(found, bench.wanted)
    left = readers.leftovers(bench.output)
    good = how == "exit code 0" and found == bench.wanted and not left
    equal = "equal" if found == bench.wanted else "OTHER"
    return good, f"{how}, {equal}, {lost} lost, {twice} twice" + (f", left {left}" if left else "")


def main() -> int:
    """Print the table; the exit code is 1 if some run after a hazard was not as it should be."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults.hazards", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="hazards whose name has one of these"
    )
    only, failed = parser.parse_args().only, False
    print("| hazard | the run | torn reads | the same command again |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        make_world(world, SHARDS, RECORDS)
        plain = Bench(world, {}, world / "undisturbed")
        if ended(plain.start()) != "exit code 0":
            raise RuntimeError("the undisturbed run fails")
        wanted = readers.result(plain.output) or {}
        for number, (name, hazard) in enumerate(HAZARDS.items()):
            if any(part in name for part in only):
                good, row = _row(hazard, Bench(world, wanted, world / f"output{number}"))
                failed |= not good
                print(f"| {name} | {row} |".replace(folder, "…"), flush=True)
    return int(failed)


def _row(hazard: Callable[[Bench], str], bench: Bench) -> tuple[bool, str]:
    how = hazard(bench)
    torn = 0
    try:
        readers.check_files(bench.output)
        readers.check_markers(bench.output)
        torn = int(readers.result(bench.output) not in (None, bench.wanted))
    except readers.TornError:
        torn = 1
    good, after = again(bench)
    subprocess.run(["umount", str(bench.output)], check=False, capture_output=True)  # noqa: S603, S607
    shutil.rmtree(bench.output, ignore_errors=True)
    return good and not torn and "HANGS" not in how, f"{how} | {torn} | {after}"


if __name__ == "__main__":
    sys.exit(main())
