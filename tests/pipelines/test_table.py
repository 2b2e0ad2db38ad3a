from pathlib import Path
from typing import Any

import pytest
import tiny

from pipelines.output import known_manifest
from pipelines.table import TABLE, files, held_files, merged
from policy.graph import Stage, StageGraph
from policy.table_manifest import TableManifest, read_manifest

SMALL = {"answers/small/s0.parquet", "features/small.block1/s0.parquet"}


@pytest.fixture
def manifest(world: Any) -> TableManifest:
    return read_manifest(world.table)


def test_where_nothing_is_there_is_no_manifest_and_no_file(tmp_path: Path) -> None:
    assert known_manifest(str(tmp_path / "new"), TABLE) is None
    assert held_files(str(tmp_path / "new")) == set()


def test_a_network_makes_a_file_per_answer_and_per_trunk(manifest: TableManifest) -> None:
    assert set(files(manifest, "small", "s0")) == SMALL
    assert files(manifest, "big", "s0") == ["answers/big/s0.parquet"]


def test_the_table_holds_all_that_its_manifest_promises(
    world: Any, manifest: TableManifest
) -> None:
    promised = {
        path
        for network in manifest.networks
        for shard in manifest.shards
        for path in files(manifest, network, shard)
    }
    assert held_files(world.table) == promised
    assert known_manifest(world.table, TABLE) == manifest


def test_shards_in_folders_are_held_by_their_whole_name(tmp_path: Path) -> None:
    tiny.write_parquet(tmp_path / "answers/small/2024/s0.parquet", {"key": ["a"]})
    assert held_files(str(tmp_path)) == {"answers/small/2024/s0.parquet"}


def test_merged_graphs_hold_shared_stages_once() -> None:
    other = StageGraph((Stage("decode", 1.0), Stage("third", 9.0, ("decode",), answers=True)), "ms")
    graph = merged(tiny.GRAPH, other)
    assert graph.stages == (*tiny.GRAPH.stages, other.stages[1])
