"""Labelling many small shards: what is done for each does not grow with their number."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny

from policy.alarm import Audits
from policy.rules import always
from transforms import commit
from transforms.commit import Output
from transforms.files import FoundFile
from transforms.label_rows import Guard, LabelStep
from transforms.networks_file import read_networks
from transforms.route import Router
from transforms.shard_loop import ShardLoop
from transforms.stages import Engine
from transforms.watch import BEGUN, Watch, Watcher, keep_records

ROWS_AND_MARKER = 2
SYNCS = 2 * ROWS_AND_MARKER
"""Of a shard: each file, and its folder once it has its name."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("nets")))), "cpu")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often something was synced to disk, and a folder was listed."""
    found, fsync, matched = Counter[str](), os.fsync, commit.matched

    def counted_fsync(handle: int) -> None:
        found["syncs"] += 1
        fsync(handle)

    def counted_matched(pattern: str) -> list[FoundFile]:
        found["listings"] += 1
        return matched(pattern)

    monkeypatch.setattr(os, "fsync", counted_fsync)
    monkeypatch.setattr(commit, "matched", counted_matched)
    return found


@pytest.mark.parametrize("number", [2, 20])
def test_each_shard_syncs_its_two_files_and_lists_nothing(
    engine: Engine, counts: Counter[str], tmp_path: Path, number: int
) -> None:
    members = tiny.image_members(np.random.default_rng(0), 1)
    paths = [tiny.write_tar(tmp_path / f"{n}.tar", members) for n in range(number)]
    shards = [tiny.shard(path.stem, path) for path in paths]
    output = Output(str(tmp_path / "labels"), "run")
    records = keep_records(output, {shard.name: 1 for shard in shards})
    guard = Guard(Watcher(Watch(Audits(1000, 10), "warn", records, 0.1, seconds=3600), output))
    with ThreadPoolExecutor(1) as pool:
        router = Router(always(engine.graph, "big"), engine, 4, 1, pool)
        loop = ShardLoop(LabelStep(router, output, {}, guard), pool, depth=4)
        counts.clear()
        done = [found for shard in shards for found in loop.process(shard)] + list(loop.finish())
    assert len(done) == len(list((tmp_path / "labels" / BEGUN).iterdir())) == number
    assert counts == {"syncs": SYNCS * number, "listings": 2}  # of one look, before the first
