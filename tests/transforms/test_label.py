import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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

from policy.bundle import Bundle, write_bundle
from policy.errors import InputError
from policy.features import Feature
from policy.means import Mean
from policy.mixture import Mixture
from policy.rows import LABELS_SCHEMA, read_about
from policy.rules import STOP, Policy, Rule, always
from transforms.commit import Output
from transforms.extract import run_all
from transforms.label import Label, LabelOptions, load_for_policy
from transforms.label_rows import LabelStep
from transforms.networks_file import NetworksFile, read_networks
from transforms.prepare import prepare
from transforms.route import Router
from transforms.shard_loop import ShardLoop
from transforms.shards import Shard, count_records, read_records
from transforms.stages import Engine
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=2, threads=0, device="cpu")
MADE_BY = {"policy": "0123", "--topk": "2"}
EXIT = "small.block1.exit"
NAMES = ("cat", "dog", "newt", "yak")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """Two shards, with a broken image, a duplicate and a label out of range among good images."""
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    image = tiny.image_bytes(rng)
    odd = [("x.png", image[:60]), ("far.cls", b"99"), ("far.png", image), ("0000.png", image)]
    first = tiny.write_tar(folder / "a.tar", tiny.image_members(rng, 7) + odd)
    second = tiny.write_tar(folder / "b.tar", tiny.image_members(rng, 6))
    return [tiny.shard("day1/a", first), tiny.shard("b", second)]


@pytest.fixture(scope="module")
def bundle(networks: NetworksFile, shards: list[Shard]) -> Bundle:
    """A policy with an exit that half of the images of the second shard take."""
    heads = {EXIT: tiny.head(np.random.default_rng(0))}
    engine = Engine(networks, "cpu", heads)
    items = [
        prepare("b", n, record, engine.inputs) for n, record in enumerate(read_records(shards[1]))
    ]
    pixels = {name: [item.pixels[name] for item in items] for name in engine.inputs}
    sure = run_all(engine, pixels, 1)[0][EXIT].probabilities[:, 0]
    feature = Feature(EXIT, "max_probability")
    bias = (-float(np.median(sure)), 0.0)
    rule = Rule(EXIT, (STOP, "big"), ((1.0,), (0.0,)), bias, (feature,))
    policy = Policy(engine.graph, EXIT, (rule,))
    return Bundle(policy, engine.class_names, engine.fingerprints, heads=heads)


@pytest.fixture(scope="module")
def engine(networks: NetworksFile, bundle: Bundle) -> Engine:
    return load_for_policy(networks, bundle, WORKER)


def labelled(engine: Engine, bundle: Bundle, shards: list[Shard], output: Path) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        router = Router(bundle.policy, engine, 4, 2, pool)
        loop = ShardLoop(LabelStep(router, Output(str(output), "run"), MADE_BY), pool, depth=8)
        done = [statistics for shard in shards for statistics in loop.process(shard)]
        return done + list(loop.finish())


def rows_of(output: Path, shard: str) -> list[dict[str, Any]]:
    return pq.read_table(output / f"{shard}.parquet").to_pylist()


@pytest.fixture(scope="module")
def output(
    engine: Engine,
    bundle: Bundle,
    shards: list[Shard],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    labelled(engine, bundle, shards, folder)
    return folder


def test_every_record_has_its_row_in_order(output: Path, shards: list[Shard]) -> None:
    for shard in shards:
        keys = [row["key"] for row in rows_of(output, shard.name)]
        assert len(keys) == count_records(shard)
        assert keys == [record.key for record in read_records(shard)]


def test_a_labelled_row_says_what_and_how(output: Path, bundle: Bundle) -> None:
    trails = set()
    for row in rows_of(output, "day1/a") + rows_of(output, "b"):
        if row["status"] == "ok":
            trails.add(tuple(row["trail"]))
            assert row["label"] == row["classes"][0]
            assert row["name"] == NAMES[row["label"]]
            assert len(row["classes"]) == len(row["probabilities"]) == 2
            assert row["answer"] == row["trail"][-1]
            assert row["cost"] == bundle.policy.graph.cost(row["trail"])
            assert row["error"] is None
    assert trails == {(EXIT,), (EXIT, "big")}


def test_a_bad_record_is_a_row_with_a_reason(output: Path) -> None:
    rows = rows_of(output, "day1/a")
    bad = [row for row in rows if row["status"] != "ok"]
    assert [(row["key"], row["status"]) for row in bad] == [
        ("day1/a/x", "decode"),
        ("day1/a/0000", "duplicate"),
    ]
    for row in bad:
        assert row["error"]
        assert row["label"] is row["trail"] is row["cost"] is row["classes"] is None


def test_statistics_lie_beside_the_labels_with_the_fingerprint(
    output: Path, shards: list[Shard]
) -> None:
    for shard in shards:
        found = json.loads((output / f"{shard.name}.json").read_text())
        rows = rows_of(output, shard.name)
        assert found["made_by"] == MADE_BY
        assert found["records"] == len(rows)
        assert sum(found["statuses"].values()) == len(rows)
        assert found["cost"] == pytest.approx(sum(row["cost"] or 0 for row in rows))
        assert found["started"] <= found["finished"]
        path = output / f"{shard.name}.parquet"
        assert read_about(pq.read_schema(path))["made_by"] == MADE_BY
        assert pq.read_schema(path).remove_metadata().equals(LABELS_SCHEMA)


def test_the_statistics_come_after_the_labels(
    engine: Engine,
    bundle: Bundle,
    shards: list[Shard],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transforms.label_rows.table_bytes", crash)
    with pytest.raises(KeyboardInterrupt):
        labelled(engine, bundle, shards, tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_an_answer_that_is_not_finite_is_a_row_without_a_label(
    engine: Engine, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", spoil(engine.run, "big"))
    rng = np.random.default_rng(0)
    shard = tiny.shard("s", tiny.write_tar(tmp_path / "s.tar", tiny.image_members(rng, 4)))
    big = replace(bundle, policy=always(engine.graph, "big"))
    labelled(engine, big, [shard], tmp_path)
    rows = rows_of(tmp_path, "s")
    assert [row["status"] for row in rows] == ["ok", "nonfinite", "ok", "ok"]
    assert rows[1]["error"] == "big gave NaN or infinity"
    assert (rows[1]["label"], rows[1]["answer"], rows[1]["trail"]) == (None, None, ["big"])
    assert rows[1]["cost"] == rows[0]["cost"]


def spoil(run: Any, spoiled: str) -> Any:
    def result(stage: str, made: Any) -> torch.Tensor:
        tensor = run(stage, made)
        if stage == spoiled:
            tensor[1] = torch.nan
        return tensor

    return result


@pytest.fixture(scope="module")
def averaging(bundle: Bundle) -> Bundle:
    """Half of the images as before; the others get both answers, and their mean as the label."""
    both = Policy(bundle.policy.graph, EXIT, (Rule(EXIT, ("big",), ((),), (0.0,)),))
    mean = Mean((("big", 3.0),), k=3)
    return replace(bundle, policy=Mixture(bundle.policy, replace(both, mean=mean), 0.5))


def test_a_mixture_labels_each_image_by_its_key(
    engine: Engine, averaging: Bundle, shards: list[Shard], tmp_path: Path
) -> None:
    mixture = averaging.policy
    labelled(engine, averaging, shards, tmp_path)
    seen = set()
    for row in rows_of(tmp_path, "day1/a") + rows_of(tmp_path, "b"):
        if row["status"] == "ok":
            (arm,) = mixture.arm_of([row["key"]])
            seen.add((int(arm), tuple(row["trail"])))
            assert row["label"] == row["classes"][0]
            assert row["answer"] == row["trail"][-1]
            assert row["cost"] == mixture.graph.cost(row["trail"])
            assert len(row["classes"]) == 2
    assert {(1, (EXIT, "big")), (0, (EXIT,))} <= seen
    assert (1, (EXIT,)) not in seen


def test_an_averaged_label_is_that_of_the_mean(
    engine: Engine, averaging: Bundle, shards: list[Shard], tmp_path: Path
) -> None:
    averaged = averaging.policy.arms[1]
    labelled(engine, replace(averaging, policy=averaged), shards, tmp_path)
    records = list(read_records(shards[1]))
    items = [prepare("b", n, record, engine.inputs) for n, record in enumerate(records)]
    pixels = {name: [item.pixels[name] for item in items] for name in engine.inputs}
    outputs = run_all(engine, pixels, None)[0]
    wanted = averaged.label({name: outputs[name] for name in (EXIT, "big")})
    for row, classes, probabilities in zip(
        rows_of(tmp_path, "b"), wanted.classes, wanted.probabilities, strict=True
    ):
        assert row["classes"] == classes[:2].tolist()
        np.testing.assert_allclose(row["probabilities"], probabilities[:2], atol=1e-4)


def test_the_pipeline_writes_what_the_loop_writes(
    networks: NetworksFile, bundle: Bundle, shards: list[Shard], output: Path, tmp_path: Path
) -> None:
    policy, wanted = (
        str(tmp_path / "policy"),
        LabelOptions(Output(str(tmp_path), "run"), 2, MADE_BY),
    )
    write_bundle(policy, bundle)
    label = Label(networks, policy, wanted, WORKER)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        done = pipeline | beam.Create(shards) | label
        counts = done | beam.Map(lambda found: (found["shard"], found["records"]))
        assert_that(counts, equal_to([("day1/a", 10), ("b", 6)]))
    same = ("key", "label", "name", "answer", "trail", "cost", "status", "error")
    for shard in shards:
        found, wanted = (rows_of(folder, shard.name) for folder in (tmp_path, output))
        assert [[row[k] for k in same] for row in found] == [
            [row[k] for k in same] for row in wanted
        ]


def test_a_worker_with_other_networks_than_the_policys_labels_nothing(
    networks: NetworksFile, bundle: Bundle, shards: list[Shard], tmp_path: Path
) -> None:
    policy, wanted = (
        str(tmp_path / "policy"),
        LabelOptions(Output(str(tmp_path), "run"), 2, MADE_BY),
    )
    write_bundle(policy, replace(bundle, fingerprints={**bundle.fingerprints, "big": "0" * 16}))
    with (
        pytest.raises(InputError, match=r"fitted for network 'big' with fingerprint 0{16}"),
        beam.Pipeline(runner=FnApiRunner()) as pipeline,
    ):
        _ = pipeline | beam.Create(shards) | Label(networks, policy, wanted, WORKER)
    assert not list(tmp_path.glob("*.parquet"))
