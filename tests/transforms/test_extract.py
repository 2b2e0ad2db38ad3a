from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from policy.rows import read_about
from transforms.commit import Output
from transforms.extract import Extract, ExtractStep, TableOptions, load_engine, run_all
from transforms.networks_file import NetworksFile, read_networks
from transforms.prepare import Prepared, prepare
from transforms.shard_loop import ShardLoop
from transforms.shards import Shard, count_records, read_records
from transforms.stages import Engine
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=2, threads=0, device="cpu")
FILES = ("answers/small", "answers/big", "features/small.block1")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))


@pytest.fixture(scope="module")
def engine(networks: NetworksFile) -> Engine:
    return load_engine(networks, None, WORKER)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """Two shards: good images, a broken one, a label out of range, one that is none, and none."""
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    image = tiny.image_bytes(rng)
    odd = [
        ("broken.cls", b"1"),
        ("broken.png", image[:60]),
        ("far.cls", b"4"),
        ("far.png", image),
        ("word.cls", b"cat"),
        ("word.png", image),
        ("unlabelled.png", image),
    ]
    first = tiny.write_tar(folder / "a.tar", tiny.image_members(rng, 5) + odd)
    second = tiny.write_tar(folder / "b.tar", tiny.image_members(rng, 6))
    return [tiny.shard("a", first), tiny.shard("b", second)]


def table_options(engine: Engine, table: Path, topk: int | None) -> TableOptions:
    made_by = {name: {"fingerprint": made} for name, made in engine.fingerprints.items()}
    return TableOptions(Output(str(table), "run"), topk, made_by)


def extracted(engine: Engine, shards: Sequence[Shard], table: Path, topk: int | None) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        options = table_options(engine, table, topk)
        loop = ShardLoop(ExtractStep(engine, options, 4), pool, depth=8)
        done = [statistics for shard in shards for statistics in loop.process(shard)]
        return done + list(loop.finish())


@pytest.fixture(scope="module")
def table(engine: Engine, shards: list[Shard], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    extracted(engine, shards, folder, None)
    return folder


@pytest.mark.parametrize("file", FILES)
def test_every_record_has_its_row_in_every_file(
    table: Path, shards: list[Shard], file: str
) -> None:
    for shard in shards:
        keys = pq.read_table(table / file / f"{shard.name}.parquet")["key"].to_pylist()
        assert len(keys) == count_records(shard)
        assert keys == [record.key for record in read_records(shard)]


@pytest.mark.parametrize("file", FILES)
def test_a_bad_record_is_a_row_with_a_reason(table: Path, file: str) -> None:
    rows = {row["key"]: row for row in pq.read_table(table / file / "a.parquet").to_pylist()}
    value = "features" if "features" in file else "classes"
    statuses = {key: row["status"] for key, row in rows.items() if row["status"] != "ok"}
    assert statuses == {"a/broken": "decode", "a/far": "label", "a/word": "label"}
    assert rows["a/far"]["error"] == "label 4 is out of range; the class list has 4 names"
    assert rows["a/word"]["error"] == "label b'cat' is not a class index"
    assert all(rows[key]["label"] is None and rows[key][value] is None for key in statuses)
    assert rows["a/unlabelled"]["label"] is None
    assert rows["a/unlabelled"][value] is not None
    assert [rows[f"a/000{i}"]["label"] for i in range(5)] == [0, 1, 2, 3, 0]


def test_numbers_are_those_of_the_networks_on_the_same_images(
    table: Path, engine: Engine, shards: list[Shard]
) -> None:
    items = [prepare("b", n, r, engine.inputs) for n, r in enumerate(read_records(shards[1]))]
    answers, features = run_all(engine, pixels(items), None)
    for name, wanted in answers.items():
        found = pq.read_table(table / f"answers/{name}/b.parquet")
        probabilities = np.array(found["probabilities"].to_pylist())
        np.testing.assert_allclose(probabilities, wanted.probabilities, atol=1e-5)
        np.testing.assert_allclose(found["entropy"], wanted.entropy, atol=1e-4)
    pooled = np.array(pq.read_table(table / f"{FILES[2]}/b.parquet")["features"].to_pylist())
    np.testing.assert_allclose(pooled, features["small.block1"], atol=2e-3)


def pixels(items: Sequence[Prepared]) -> dict[str, list[np.ndarray]]:
    return {name: [item.pixels[name] for item in items] for name in items[0].pixels}


@pytest.mark.parametrize(("topk", "k"), [(1, 1), (3, 3), (None, 4), (9, 4)])
def test_the_best_classes_are_kept(
    engine: Engine, shards: list[Shard], tmp_path: Path, topk: int | None, k: int
) -> None:
    extracted(engine, shards[1:], tmp_path, topk)
    row, *_ = pq.read_table(tmp_path / "answers/big/b.parquet").to_pylist()
    assert len(row["classes"]) == len(row["probabilities"]) == k
    assert row["probabilities"] == sorted(row["probabilities"], reverse=True)


def test_files_say_which_network_made_them(table: Path, engine: Engine) -> None:
    for file, network in zip(FILES, ("small", "big", "small"), strict=True):
        about = read_about(pq.read_schema(table / file / "a.parquet"))
        assert about["made_by"] == {"fingerprint": engine.fingerprints[network]}


def test_networks_are_run_on_full_batches_across_shards(
    engine: Engine, shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, make = [], engine.input_batch
    monkeypatch.setattr(engine, "input_batch", lambda s, p: sizes.append(len(p)) or make(s, p))
    extracted(engine, shards, tmp_path, None)
    assert sizes == [4, 4] * 3  # 12 good records, one batch for each input


def test_nothing_but_the_wanted_networks_is_extracted(
    networks: NetworksFile, shards: list[Shard], tmp_path: Path
) -> None:
    extracted(load_engine(networks, ["big"], WORKER), shards, tmp_path, None)
    assert {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")} == {
        "answers/big"
    }


def test_an_answer_that_is_not_finite_is_a_row_with_a_reason_and_costs_no_other(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = engine.run

    def spoiled(stage: str, made: Any) -> torch.Tensor:
        tensor = run(stage, made)
        if stage == "small":
            tensor[1] = torch.nan
        return tensor

    monkeypatch.setattr(engine, "run", spoiled)
    rng = np.random.default_rng(0)
    shard = tiny.shard("s", tiny.write_tar(tmp_path / "s.tar", tiny.image_members(rng, 3)))
    extracted(engine, [shard], tmp_path, None)
    rows = pq.read_table(tmp_path / "answers/small/s.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "nonfinite", "ok"]
    assert rows[1]["error"] == "small gave NaN or infinity"
    assert rows[1]["probabilities"] is None
    big = pq.read_table(tmp_path / "answers/big/s.parquet")
    assert big["status"].to_pylist() == ["ok"] * 3


def test_a_key_that_is_not_utf8_does_not_stop_the_job(engine: Engine, tmp_path: Path) -> None:
    image = tiny.image_bytes(np.random.default_rng(0))
    path = tiny.write_tar(tmp_path / "s.tar", [("caf\udce9.png", image), ("b.png", image)])
    (done,) = extracted(engine, [tiny.shard("s", path)], tmp_path, None)
    assert done["records"] == 2


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (0, None)])
def test_torch_gets_the_threads_that_were_asked_for(
    networks: NetworksFile, threads: int, expected: int | None
) -> None:
    before = torch.get_num_threads()
    try:
        load_engine(networks, ["small"], WorkerOptions(1, 1, threads, "cpu"))
        assert torch.get_num_threads() == (expected or before)
    finally:
        torch.set_num_threads(before)


def test_the_pipeline_writes_what_the_loop_writes(
    networks: NetworksFile, engine: Engine, shards: list[Shard], table: Path, tmp_path: Path
) -> None:
    extract = Extract(networks, ("small", "big"), table_options(engine, tmp_path, None), WORKER)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        done = pipeline | beam.Create(shards) | extract
        counts = done | beam.Map(lambda found: (found["shard"], found["records"]))
        assert_that(counts, equal_to([("a", 9), ("b", 6)]))
    for path in (f"{file}/{shard}.parquet" for file in FILES for shard in ("a", "b")):
        found, wanted = (pq.read_table(folder / path) for folder in (tmp_path, table))
        exact = ["key", "label", "status", "error"]
        assert found.select(exact).equals(wanted.select(exact))
