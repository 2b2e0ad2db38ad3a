"""Peak memory does not grow with the corpus: not with records, and not with shards."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

RECORDS_A_SHARD = 25
SHARDS = 20
MARGIN_MB = 20

# Not ru_maxrss: a process inherits that of the one that started it.
LABEL = """
import sys
from pathlib import Path
from launch.runners import local
from pipelines import classify

def peak_mb():
    (line,) = [x for x in open("/proc/self/status") if x.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

networks, policy, *corpora = sys.argv[1:]
for corpus in corpora:
    given = dict(networks=networks, policy=policy, input=(corpus + "/*.tar",), threads=1)
    done = classify.run(classify.ClassifyOptions(output=corpus + "/labels", **given), local(1))
    print(done.newly_labelled, peak_mb())
"""


def write(folder: Path, shards: int, shard: Path) -> str:
    folder.mkdir()
    for number in range(shards):
        shutil.copy(shard, folder / f"{number:04d}.tar")
    return str(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_ten_times_the_records_in_ten_times_the_shards_take_no_more_memory(
    world: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    members = [
        (f"{number}.png", tiny.image_bytes(rng, (60, 60))) for number in range(RECORDS_A_SHARD)
    ]
    shard = tiny.write_tar(tmp_path / "shard.tar", members)
    corpora = [write(tmp_path / str(times), SHARDS * times, shard) for times in (1, 10)]
    done = subprocess.run(
        [sys.executable, "-c", LABEL, world.networks, world.policy, *corpora],
        env={"PYTHONPATH": f"{tiny.FOLDER}:{tiny.FOLDER.parent}"},
        cwd=tiny.FOLDER.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    (few, before), (many, after) = (line.split() for line in done.stdout.splitlines())
    assert (int(few), int(many)) == (500, 5000)
    assert float(after) < float(before) + MARGIN_MB, (before, after)
