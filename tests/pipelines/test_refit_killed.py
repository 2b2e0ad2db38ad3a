"""A refit that is killed for real, at any moment, and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_refits import Lab, with_policy

from policy.rules import always
from policy.table import read_table

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_after_any_share_of_its_time_and_run_again_it_ends_the_same(
    first: Any, second: Any, tmp_path: Path
) -> None:
    whole = begun(first, tmp_path / "whole")
    start = time.monotonic()
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    seconds = time.monotonic() - start
    assert whole.state() == second[0].state()
    for share in (0.7, 0.9, 1.0):
        lab = begun(first, tmp_path / f"killed after {share}")
        run = subprocess.Popen(
            command(lab), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(share * seconds)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        lab.refit()  # in this process: what it imports takes longer than what it does
        assert lab.state() == whole.state(), share
        assert read_table(lab.table).digest == read_table(whole.table).digest
        assert not (Path(lab.table) / "_refit").exists()


def begun(first: Any, folder: Path) -> Lab:
    """What a refit begins with, in a folder of its own."""
    lab: Lab = first[0].at(folder)
    own = lab.registry.read(lab.registry.versions()[0])
    lab.put_into_use(with_policy(own, lambda bundle: always(bundle.policy.graph, "big")))
    lab.arrive()
    return lab


def command(lab: Lab) -> list[str]:
    """The refit's command."""
    return [sys.executable, "-m", "launch.cli", "refit", "--job", str(lab.folder / "job.toml")]
