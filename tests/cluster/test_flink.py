"""What the local runner does, a Flink cluster does too, whatever dies on the way.

That it does so with a pool of workers, and with processes that it starts, makes the same table, is
seen in test_flink_docs.py.
"""

import json
import os
import re
import signal
from pathlib import Path

from digits import World, decisions
from local_cluster import Cluster
from processes import until, write_command


def test_two_local_workers_label_as_one_does(world: World, tmp_path: Path) -> None:
    done = world.run("classify", tmp_path / "labels", "local", [])
    assert done.returncode == 0
    assert decisions(tmp_path / "labels") == world.labelled


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_taskmanager_that_is_killed_is_replaced_and_the_job_ends_as_if_nothing_had_been(
    world: World, flink: Cluster, tmp_path: Path
) -> None:
    run = world.started(flink, tmp_path / "labels", flink.endpoint)
    victim = flink.processes.pop("taskmanager-1")
    victim.kill()
    victim.wait()
    done_before = set((tmp_path / "labels").glob("corpus*.json"))
    flink.add_taskmanager("taskmanager-3")

    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert len(done_before) < len(set((tmp_path / "labels").glob("corpus*.json")))
    assert decisions(tmp_path / "labels") == world.labelled


def test_a_python_worker_that_is_killed_is_replaced_and_the_job_ends_as_if_nothing_had_been(
    world: World, flink: Cluster, tmp_path: Path
) -> None:
    run = world.started(flink, tmp_path / "labels", flink.endpoint)
    os.kill(children(flink.processes["pool"].pid)[0], signal.SIGKILL)

    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert decisions(tmp_path / "labels") == world.labelled


def test_a_run_that_is_told_to_end_takes_its_job_with_it_and_another_finishes(
    world: World, flink: Cluster, tmp_path: Path
) -> None:
    run = world.started(flink, tmp_path / "labels")
    (job,) = [name for name, state in flink.jobs().items() if state == "RUNNING"]
    servers = children(run.pid)
    run.terminate()
    _, said = run.communicate(timeout=60)

    assert run.returncode == 143
    assert "terminated; run the same command again" in said
    until("the end of the job", lambda: flink.jobs()[job] == "CANCELED")
    until("the end of the job server", lambda: not any(is_running(each) for each in servers))
    worker = tmp_path / "adalabel-worker"
    write_command(worker, "launch.worker")
    config = json.dumps({"command": str(worker)})
    started = ["--environment_type=PROCESS", f"--environment_config={config}"]  # by TaskManagers
    done = world.run("classify", tmp_path / "labels", "flink", [*flink.flags, *started])
    assert done.returncode == 0
    assert "500 records" in done.stdout
    assert decisions(tmp_path / "labels") == world.labelled


def is_running(process: int) -> bool:
    """Whether a process is there and not only waits for its parent to look."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_a_worker_raises_for_the_user_reaches_the_user_with_its_exit_code(
    world: World, flink: Cluster, fails: Path, tmp_path: Path
) -> None:
    run = world.started(flink, tmp_path / "labels", flink.endpoint)
    fails.touch()
    try:
        _, said = run.communicate(timeout=300)
    finally:
        fails.unlink()
    assert run.returncode == 2, said
    last = said.splitlines()[-1]  # of the images, or of the probe of a worker that started anew
    assert re.match("adalabel classify: .*large.* fails on .*told to fail", last), last
