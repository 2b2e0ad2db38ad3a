"""Memory does not grow with the corpus: not with records, and not with shards."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

RECORDS_A_SHARD = 8
SHARDS = 60
BATCH = 8  # so that what may wait does so long before the later half
MARGIN_MB = 20
MOST_KB_A_SHARD = 8  # measured: 0.8 to 2.9, and 27 to 40 if the rows of each shard are kept

# Not ru_maxrss: a process inherits that of the one that started it.
LABEL = """
import sys
from pathlib import Path
from launch.runners import local
from pipelines import classify

def peak_mb():
    (line,) = [x for x in open("/proc/self/status") if x.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

networks, policy, batch, *corpora = sys.argv[1:]
for corpus in corpora:
    given = dict(networks=networks, policy=policy, input=(corpus + "/*.tar",), threads=1)
    given |= dict(output=corpus + "/labels", batch_size=int(batch))
    done = classify.run(classify.ClassifyOptions(**given), local(1))
    print(done.newly_labelled, peak_mb())
"""


def write(folder: Path, shards: int, shard: Path) -> str:
    folder.mkdir()
    for number in range(shards):
        shutil.copy(shard, folder / f"{number:04d}.tar")
    return str(folder)


def watched(process: subprocess.Popen[str], output: Path) -> list[tuple[int, int]]:
    """(shards done, kB of memory) as time goes on, until the process has ended."""
    seen = []
    while process.poll() is None:
        done = len(list(output.glob("*.json")))
        status = Path(f"/proc/{process.pid}/status").read_text()
        seen += [(done, int(x.split()[1])) for x in status.splitlines() if x.startswith("VmRSS:")]
        time.sleep(0.05)
    return seen


def kb_a_shard(seen: list[tuple[int, int]], shards: int) -> float:
    """By how much memory grows over the later half of the shards, until the last is done."""
    later = np.array([(done, kb) for done, kb in seen if shards // 2 <= done < shards])
    assert len(later) > 20
    return float(np.polyfit(later[:, 0], later[:, 1], 1)[0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_ten_times_the_records_in_ten_times_the_shards_take_no_more_memory(
    world: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    members = [
        (f"{number}.png", tiny.image_bytes(rng, (20, 20))) for number in range(RECORDS_A_SHARD)
    ]
    shard = tiny.write_tar(tmp_path / "shard.tar", members)
    corpora = [write(tmp_path / str(times), SHARDS * times, shard) for times in (1, 10)]
    with subprocess.Popen(
        [sys.executable, "-c", LABEL, world.networks, world.policy, str(BATCH), *corpora],
        env={"PYTHONPATH": f"{tiny.FOLDER}:{tiny.FOLDER.parent}"},
        cwd=tiny.FOLDER.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        seen = watched(process, Path(corpora[1], "labels"))
        said, _ = process.communicate()
    assert process.returncode == 0
    (few, before), (many, after) = (line.split() for line in said.splitlines())
    assert (int(few), int(many)) == (480, 4800)
    assert float(after) < float(before) + MARGIN_MB, (before, after)
    assert kb_a_shard(seen, 10 * SHARDS) < MOST_KB_A_SHARD
