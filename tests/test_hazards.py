"""Some of the hazards of benchmarks/faults/hazards, which does all of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from printed import rows

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_after_any_hazard_the_same_command_makes_the_result_whole() -> None:
    codes = {
        "one of two workers": "exit code 5: ",
        "SIGTERM": "exit code 143",
        "SIGSTOP": "the other run: exit code 4: ",
        "bundle": "exit code 0",
        "at once": "exit code 0; exit code 4: ",
        "clock": "exit code 0",
        "handles": "exit code ",
    }
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.hazards", "--only", *codes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    found = {row["hazard"]: row["the run"] for row in rows(run.stdout)}
    assert len(found) == len(codes)
    for part, how in codes.items():
        (name,) = (name for name in found if part in name)
        assert found[name].startswith(how), (name, found[name])
