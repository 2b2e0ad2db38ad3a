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
@pytest.mark.parametrize("share", [0.7, 0.9, 1.0])
def test_killed_after_any_share_of_its_time_and_run_again_it_ends_the_same(
    first: Any, second: Any, tmp_path: Path, share: float
) -> None:
    lab: Lab = first[0].at(tmp_path / "lab")
    own = lab.registry.read(lab.registry.versions()[0])
    lab.put_into_use(with_policy(own, lambda bundle: always(bundle.policy.graph, "big")))
    lab.arrive()
    command = [sys.executable, "-m", "launch.cli", "refit", "--job", str(lab.folder / "job.toml")]
    whole: Lab = lab.at(tmp_path / "whole")
    start = time.monotonic()
    subprocess.run(
        [*command[:-1], str(whole.folder / "job.toml")], cwd=ROOT, check=True, capture_output=True
    )
    wait = share * (time.monotonic() - start)
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(wait)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert lab.state() == whole.state() == second[0].state()
    assert read_table(lab.table).digest == read_table(whole.table).digest
    assert not (Path(lab.table) / "_refit").exists()
