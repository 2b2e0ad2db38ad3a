from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny

from pipelines.table import counted, files, held_files, known_manifest, merged
from policy.errors import InputError
from policy.graph import Stage, StageGraph
from policy.rows import FEATURES_SCHEMA, parquet_bytes
from policy.table import TableManifest, read_manifest

SMALL = {"answers/small/s0.parquet", "features/small.block1/s0.parquet"}


@pytest.fixture
def manifest(world: Any) -> TableManifest:
    return read_manifest(world.table)


def test_where_nothing_is_there_is_no_manifest_and_no_file(tmp_path: Path) -> None:
    assert known_manifest(str(tmp_path / "new")) is None
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
    assert known_manifest(world.table) == manifest


def test_shards_in_folders_are_held_by_their_whole_name(tmp_path: Path) -> None:
    tiny.write_parquet(tmp_path / "answers/small/2024/s0.parquet", {"key": ["a"]})
    assert held_files(str(tmp_path)) == {"answers/small/2024/s0.parquet"}


def test_merged_graphs_hold_shared_stages_once() -> None:
    other = StageGraph((Stage("decode", 1.0), Stage("third", 9.0, ("decode",), answers=True)), "ms")
    graph = merged(tiny.GRAPH, other)
    assert graph.stages == (*tiny.GRAPH.stages, other.stages[1])


def test_rejected_rows_are_counted_once_though_several_files_hold_them(
    world: Any, manifest: TableManifest
) -> None:
    found, rejected, unlabelled = counted(world.table, manifest, {})
    assert found.shards == {"s0": 42, "s1": 42, "s2": 42}
    assert (rejected, unlabelled) == ({"decode": 1}, 0)


def test_a_file_of_another_network_is_refused(
    world: Any, manifest: TableManifest, tmp_path: Path
) -> None:
    mine = world.at(tmp_path)
    answers = Path(mine.table, "answers")
    (answers / "big/s1.parquet").write_bytes((answers / "small/s1.parquet").read_bytes())
    ours, other = (manifest.networks[name].fingerprint for name in ("big", "small"))
    with pytest.raises(
        InputError, match=f"big/s1.parquet: was made with fingerprint {other}, this run has {ours}"
    ):
        counted(mine.table, manifest, {})


def test_files_of_one_shard_with_different_rows_are_refused(
    world: Any, manifest: TableManifest, tmp_path: Path
) -> None:
    mine = world.at(tmp_path)
    path = Path(mine.table, "features/small.block1/s2.parquet")
    rows = pq.read_table(path).to_pylist()[:5]
    about = {"fingerprint": manifest.networks["small"].fingerprint}
    path.write_bytes(parquet_bytes(rows, FEATURES_SCHEMA, about))
    with pytest.raises(InputError, match=r"block1/s2.parquet: has 5 rows, wanted 42"):
        counted(mine.table, manifest, {})


def test_a_missing_file_is_named(world: Any, manifest: TableManifest, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    Path(mine.table, "answers/big/s1.parquet").unlink()
    with pytest.raises((InputError, FileNotFoundError), match=r"answers/big/s1.parquet"):
        counted(mine.table, manifest, {})
