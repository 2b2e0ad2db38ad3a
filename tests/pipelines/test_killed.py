"""A run that is killed and started again ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

SHARDS, RECORDS = 24, 25


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for number in range(SHARDS):
        members = [
            (f"{row:03d}.png", tiny.image_bytes(rng, (200, 200)) if row else b"no image")
            for row in range(RECORDS)
        ]
        tiny.write_tar(folder / f"{number:03d}.tar", members)
    return str(folder / "*.tar")


def decisions(output: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What must not depend on how often a run was killed, by shard."""
    return {
        path.stem: [
            (row["key"], row["label"], row["trail"], row["status"], row["audit"], row["disagrees"])
            for row in pq.read_table(path).to_pylist()
        ]
        for path in sorted(output.glob("*.parquet"))
    }


def receipt_of(output: Path) -> dict[str, Any]:
    """What the receipt says of the promise, but for when an alarm was first seen."""
    receipt: dict[str, Any] = json.loads((output / "_receipt.json").read_text())
    assert receipt["reality"]["audited"] > 0
    assert receipt["reality"].pop("alarm")  # random pixels are unlike the table's images
    return receipt["reality"]


@pytest.mark.slow
def test_a_killed_run_started_again_equals_an_undisturbed_one(
    world: Any, corpus: str, tmp_path: Path
) -> None:
    arguments = ["classify", "--networks", world.networks, "--policy", world.policy]
    arguments += ["--input", corpus, "--batch-size", "4", "--audit-fraction", "0.2", "--output"]
    command = [sys.executable, "-m", "launch.cli", *arguments]
    root = Path(__file__).parents[2]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for wanted in (1, SHARDS // 2):  # killed twice, each time with some shards done
        run = subprocess.Popen([*command, killed], cwd=root, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(killed.glob("0*.json"))) < wanted:
            assert run.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert len(list(killed.glob("0*.json"))) < SHARDS

    done_before = {path: path.stat().st_mtime_ns for path in killed.glob("0*.json")}
    for output in (killed, whole):
        subprocess.run([*command, output], cwd=root, check=True, capture_output=True)

    assert decisions(killed) == decisions(whole)
    assert receipt_of(killed) == receipt_of(whole)
    assert sum(map(len, decisions(killed).values())) == SHARDS * RECORDS
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done_before.items())
