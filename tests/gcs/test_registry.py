"""A registry of policies in a bucket of the emulator."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_policies
from gcs.world import ROOT

from launch.cli import main
from pipelines.policy_source import read_policy
from pipelines.promote import Wish, publish, rollback
from pipelines.registry import open_registry
from policy.bundle import read_bundle
from policy.errors import Damaged
from transforms import bucket
from transforms.chain import POINTER

PUBLISHERS = 3


def test_the_commands_work_on_a_bucket(
    shelf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"{shelf}/policies"
    for cut in (0.5, 0.6):
        folder = tiny_policies.write(tmp_path / f"{cut}", cut)
        assert main(["policy", "publish", "--registry", root, "--policy", folder]) == 0
    assert main(["policy", "rollback", "--registry", root]) == 0
    capsys.readouterr()
    assert main(["policy", "list", "--registry", root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["current"], len(found["versions"])) == (1, 2)
    first = open_registry(root).find("1")
    assert read_policy(root).version == first == read_policy(f"{root}@1").version
    assert read_bundle(first.folder).digest == first.policy
    content, _ = bucket.read(f"{root}/{POINTER}") or (b"", 0)
    assert json.loads(content)["current"]["number"] == 1


def test_a_bundle_that_was_changed_in_the_bucket_is_refused(shelf: str, tmp_path: Path) -> None:
    registry = open_registry(f"{shelf}/policies")
    version = publish(registry, tiny_policies.write(tmp_path / "p", 0.5), Wish()).version
    bucket.replace(f"{version.folder}/report.html", b"<p>all is well")
    with pytest.raises(Damaged, match="is not what was published as version 1"):
        read_policy(registry.root)


def test_of_publishers_at_once_none_loses_anothers_move(shelf: str, tmp_path: Path) -> None:
    registry = open_registry(f"{shelf}/policies")
    publish(registry, tiny_policies.write(tmp_path / "first", 0.05), Wish())

    def started(number: int) -> subprocess.CompletedProcess[str]:
        folder = tiny_policies.write(tmp_path / f"{number}", number / 10)
        words = ["policy", "publish", "--registry", registry.root, "--policy", folder]
        return subprocess.run(
            [sys.executable, "-m", "launch.cli", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        ended = list(pool.map(started, range(1, PUBLISHERS + 1)))
    assert {run.returncode for run in ended} <= {0, 4}, ended
    won = sum(run.returncode == 0 for run in ended)
    promoted = [step.current and step.current.number for step in registry.history()]
    assert promoted == list(range(1, won + 2))
    assert all("moved CURRENT meanwhile" in run.stderr for run in ended if run.returncode)
    assert rollback(registry, None, "").version.number == won


def test_of_threads_at_once_exactly_one_makes_a_step(shelf: str) -> None:
    def append(number: int) -> bool:
        chain = open_registry(f"{shelf}/policies").chain(f"host.{number}.x")
        return chain.append(1, json.dumps({"step": 1, "by": number}).encode())

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(append, range(8))) == 1
