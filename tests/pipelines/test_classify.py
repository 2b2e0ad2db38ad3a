import json
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_images
import torch

from pipelines.accounting import Account
from pipelines.classify import ClassifyReceipt
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import InputError
from policy.rules import always
from policy.simulate import simulate
from policy.table import read_table
from transforms.stages import Engine

SHARDS = ("s0", "s1", "s2")


@pytest.fixture(scope="module")
def done(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClassifyReceipt]:
    """Labels of all shards, not to be changed, and the receipt of making them."""
    output = tmp_path_factory.mktemp("labels") / "out"
    return output, world.classify(output)


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [
        row for shard in SHARDS for row in pq.read_table(output / f"{shard}.parquet").to_pylist()
    ]


def decisions(output: Path) -> list[tuple[Any, ...]]:
    """What must not change from run to run."""
    return [(r["key"], r["label"], r["trail"], r["cost"], r["status"]) for r in rows_of(output)]


def times(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("s*.*")}


def test_every_record_gets_one_row_in_order(done: tuple[Path, ClassifyReceipt]) -> None:
    keys = [row["key"] for row in rows_of(done[0])]
    assert keys == [f"{shard}/{number:04d}" for shard in SHARDS for number in range(42)]


def test_a_worker_in_the_process_that_launches_runs_the_networks_that_were_checked(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(*arguments: Any) -> Engine:
        loaded.append(arguments)
        return Engine(*arguments)

    monkeypatch.setattr("transforms.label.Engine", load)
    assert world.classify(tmp_path / "out").newly_labelled
    assert len(loaded) == 1
    world.classify(tmp_path / "again")  # another run looks at the networks anew
    assert len(loaded) == 2


def test_networks_that_the_worker_loads_otherwise_are_let_go_before(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Engine]] = []

    def load(*arguments: Any) -> Engine:
        assert not any(engine() for engine in loaded)
        engine = Engine(*arguments)
        loaded.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr("transforms.label.Engine", load)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    assert world.classify(tmp_path / "out", compile=True).newly_labelled
    assert len(loaded) == 2


def test_images_go_where_simulate_sends_the_table(
    world: Any, done: tuple[Path, ClassifyReceipt]
) -> None:
    table, policy = read_table(world.table), read_bundle(world.policy).policy
    routes = simulate(policy, table.outputs)
    given = routes.answers(table.outputs, 5)
    labelled = [row for row in rows_of(done[0]) if row["status"] == "ok"]
    trails = [list(routes.trails[number]) for number in routes.trail_of]
    assert len({tuple(trail) for trail in trails}) > 1  # or this would show little
    assert [row["trail"] for row in labelled] == trails
    assert [row["classes"] for row in labelled] == given.classes.tolist()
    assert [row["cost"] for row in labelled] == pytest.approx(routes.cost.tolist())
    names = [table.class_names[row["label"]] for row in labelled]
    assert [row["name"] for row in labelled] == names


def test_the_receipt_adds_up(world: Any, done: tuple[Path, ClassifyReceipt]) -> None:
    output, receipt = done
    rows = rows_of(output)
    labelled = [row for row in rows if row["status"] == "ok"]
    assert (receipt.shards, receipt.records, receipt.newly_labelled) == (3, 126, 126)
    assert receipt.statuses == Counter(row["status"] for row in rows) == {"ok": 125, "decode": 1}
    assert receipt.exits == Counter(row["answer"] for row in labelled)
    assert receipt.cost == pytest.approx(sum(row["cost"] for row in labelled) / 125)
    graph = read_bundle(world.policy).policy.graph
    assert receipt.full_cost == graph.cost((graph.full,))
    assert receipt.speedup == pytest.approx(receipt.full_cost / receipt.cost)
    assert (receipt.output, receipt.unit) == (str(output), "gmac")
    assert receipt.promise == read_bundle(world.policy).evidence
    assert receipt.seconds > 0
    assert receipt.images_per_second > 0


def test_the_time_of_the_worker_is_accounted_for(done: tuple[Path, ClassifyReceipt]) -> None:
    _, receipt = done
    wall = receipt.newly_labelled / receipt.images_per_second
    assert sum(receipt.time_spent.values()) == pytest.approx(wall, rel=0.05, abs=0.05)
    assert {"decode", "resize", "copy", "policy", "commit"} <= receipt.time_spent.keys()
    assert any(what.startswith("stage ") for what in receipt.time_spent)
    assert "% decode" in receipt.text()
    assert "time  " not in replace(receipt, time_spent={}).text()


def test_the_receipt_lies_beside_the_labels(done: tuple[Path, ClassifyReceipt]) -> None:
    output, receipt = done
    written = json.loads((output / "_receipt.json").read_text())
    assert written["records"] == receipt.records
    assert written["promise"]["promise"] == "top1 excess at most 0.12"


def test_the_receipt_reads_well(done: tuple[Path, ClassifyReceipt]) -> None:
    text = done[1].text()
    assert "3 shards, 126 records: 125 labelled, rejected: 1 decode, 0 duplicates, 0 unacc" in text
    assert "expected" in text
    assert "(asked: top1 excess at most 0.12; seen on" in text
    good = replace(done[1], account=Account(126, 126, {}, 0, {}, 0), promise=None).text()
    assert "126 labelled, rejected: none" in good
    assert "expected" not in good


def test_shards_done_before_are_skipped(
    world: Any, tmp_path: Path, done: tuple[Path, ClassifyReceipt]
) -> None:
    output = tmp_path / "out"
    world.classify(output, input=(f"{world.folder}/s0.tar", f"{world.folder}/s2.tar"))
    before = times(output)
    receipt = world.classify(output)
    assert before.items() <= times(output).items()
    assert decisions(output) == decisions(done[0])
    assert (receipt.newly_labelled, receipt.records, receipt.statuses["ok"]) == (42, 126, 125)
    assert receipt.cost == pytest.approx(done[1].cost)


@pytest.mark.parametrize("change", [str, "{}/".format], ids=["the same", "with a slash"])
def test_running_again_writes_no_label(
    world: Any, tmp_path: Path, done: tuple[Path, ClassifyReceipt], change: Any
) -> None:
    output = tmp_path / "out"
    world.classify(output)
    before = times(output)
    receipt = world.classify(change(output))
    assert times(output) == before
    assert (receipt.newly_labelled, receipt.images_per_second) == (0, 0.0)
    assert (receipt.exits, receipt.cost) == (done[1].exits, pytest.approx(done[1].cost))


@pytest.mark.parametrize("lost", [("s1.json",), ("s1.parquet",), ("s1.json", "s1.parquet")])
def test_a_deleted_shard_is_done_again_and_is_equal(
    world: Any, tmp_path: Path, done: tuple[Path, ClassifyReceipt], lost: tuple[str, ...]
) -> None:
    output = tmp_path / "out"
    world.classify(output)
    for name in lost:
        (output / name).unlink()
    assert world.classify(output).newly_labelled == 42
    assert decisions(output) == decisions(done[0])


def test_only_the_shards_of_the_input_count(world: Any, tmp_path: Path) -> None:
    world.classify(tmp_path / "out")
    receipt = world.classify(tmp_path / "out", input=(f"{world.folder}/s0.tar",))
    assert (receipt.shards, receipt.records, receipt.statuses) == (1, 42, {"ok": 42})


def test_a_shard_may_be_called_receipt(world: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shard = tiny.write_tar(tmp_path / "receipt.tar", tiny.image_members(rng, 3))
    for newly_labelled in (3, 0):
        receipt = world.classify(tmp_path / "out", input=(str(shard),))
        assert (receipt.records, receipt.newly_labelled) == (3, newly_labelled)


def test_labels_may_lie_in_a_folder_with_brackets(world: Any, tmp_path: Path) -> None:
    receipt = world.classify(tmp_path / "run[1]", input=(f"{world.folder}/s0.tar",))
    assert receipt.records == 42


def test_rejects_and_duplicates_have_rows(world: Any, tmp_path: Path) -> None:
    image = tiny.image_bytes(np.random.default_rng(0))
    members = [
        ("a.png", image),
        ("b.png", b"GIF89a, but no more"),
        ("a.png", image),
        ("c.json", b"{}"),
        ("d.png", b""),
    ]
    shard = tiny.write_tar(tmp_path / "bad.tar", members)
    receipt = world.classify(tmp_path / "out", input=(str(shard),), max_bad_fraction=0.6)
    rows = pq.read_table(tmp_path / "out/bad.parquet").to_pylist()
    wanted = ["ok", "decode", "duplicate", "no_image", "empty"]
    assert [row["status"] for row in rows] == wanted
    assert receipt.statuses == Counter(wanted)
    assert all((row["label"] is None) == bool(row["error"]) for row in rows)


def test_a_corpus_without_one_good_image_has_a_receipt_too(world: Any, tmp_path: Path) -> None:
    shard = tiny.write_tar(tmp_path / "bad.tar", [("a.png", b"no"), ("b.png", b"no")])
    receipt = world.classify(tmp_path / "out", input=(str(shard),), max_bad_fraction=1.0)
    assert (receipt.statuses, receipt.exits) == ({"decode": 2}, {})
    assert (receipt.cost, receipt.speedup) == (0.0, None)
    assert "0 labelled" in receipt.text()


def test_topk_says_how_many_classes_are_written(world: Any, tmp_path: Path) -> None:
    world.classify(tmp_path / "out", input=(f"{world.folder}/s0.tar",), topk=2)
    rows = pq.read_table(tmp_path / "out/s0.parquet").to_pylist()
    assert {len(row["classes"]) for row in rows} == {2}
    assert all(row["classes"][0] == row["label"] for row in rows)


@pytest.mark.parametrize("topk", [0, -1])
def test_a_topk_below_one_is_refused(world: Any, tmp_path: Path, topk: int) -> None:
    with pytest.raises(InputError, match=f"--topk {topk}"):
        world.classify(tmp_path / "out", topk=topk)


def test_another_policy_into_the_same_output_is_refused(world: Any, tmp_path: Path) -> None:
    bundle = read_bundle(world.policy)
    single = always(bundle.policy.graph, "big")
    write_bundle(str(tmp_path / "other"), replace(bundle, policy=single))
    world.classify(tmp_path / "out")
    before = times(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"was made with policy \w+, this run has \w+; choose another"
    ):
        world.classify(tmp_path / "out", policy=str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"was made with --topk 5, this run has 2; choose"):
        world.classify(tmp_path / "out", topk=2)
    assert times(tmp_path / "out") == before


def test_a_policy_for_other_networks_is_refused(world: Any, tmp_path: Path) -> None:
    networks = world.networks_file(tmp_path / "changed", seed=1)
    with pytest.raises(InputError, match="was fitted for network 'small' with fingerprint"):
        world.classify(tmp_path / "out", networks=networks)
    assert not (tmp_path / "out").exists()


def test_networks_that_the_policy_needs_must_be_there(world: Any, tmp_path: Path) -> None:
    networks = world.networks_file(tmp_path / "one", ["small"])
    with pytest.raises(
        InputError,
        match="'big', which the policy was fitted for, is not in the networks file",
    ):
        world.classify(tmp_path / "out", networks=networks)


def test_a_policy_that_exits_at_a_network_runs_that_network_alone(
    world: Any, tmp_path: Path
) -> None:
    bundle = read_bundle(world.policy)
    graph = bundle.policy.graph
    fingerprints = {"small": bundle.fingerprints["small"]}
    write_bundle(
        str(tmp_path / "p"), Bundle(always(graph, "small"), bundle.class_names, fingerprints)
    )
    networks = world.networks_file(tmp_path / "one", ["small"])
    receipt = world.classify(tmp_path / "out", networks=networks, policy=str(tmp_path / "p"))
    assert receipt.exits == {"small": 125}
    assert receipt.cost == pytest.approx(graph.cost(("small",)))


def test_a_shard_that_changed_since_is_not_taken_for_done(world: Any, tmp_path: Path) -> None:
    for n in (3, 5):
        shard = tiny.write_tar(tmp_path / "s.tar", tiny.image_members(np.random.default_rng(n), n))
        if n == 3:
            world.classify(tmp_path / "out", input=(str(shard),))
    with pytest.raises(InputError, match=r"s\.tar|'s'|s\.json"):
        world.classify(tmp_path / "out", input=(str(shard),))


def test_a_list_file_names_the_shards(world: Any, tmp_path: Path) -> None:
    listed = tmp_path / "shards.txt"
    listed.write_text(f"{world.folder}/s0.tar\n\n{world.folder}/s2.tar\n")
    assert world.classify(tmp_path / "out", input=(str(listed),)).records == 84


def test_a_missing_shard_of_a_list_file_is_an_error(world: Any, tmp_path: Path) -> None:
    listed = tmp_path / "shards.txt"
    listed.write_text(f"{world.folder}/s0.tar\n{world.folder}/s9.tar\n")
    with pytest.raises(InputError, match=r"s9.tar: matches no file"):
        world.classify(tmp_path / "out", input=(str(listed),))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(("{}/none/*.tar",), "matches no file; check the path"), ((), "no shards given")],
)
def test_an_input_without_shards_is_an_error(
    world: Any, tmp_path: Path, patterns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        world.classify(tmp_path / "out", input=tuple(p.format(tmp_path) for p in patterns))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_missing_gpu_is_an_error_with_the_remedy(world: Any, tmp_path: Path, device: str) -> None:
    with pytest.raises(InputError, match=rf"--device {device}: .* sees 0 GPUs.*--device cpu"):
        world.classify(tmp_path / "out", device=device)


def test_a_policy_fitted_on_imported_predictions_labels_nothing(world: Any, tmp_path: Path) -> None:
    bundle = read_bundle(world.policy)
    imported = dict.fromkeys(bundle.fingerprints, "imported:big")
    write_bundle(str(tmp_path / "p"), replace(bundle, fingerprints=imported))
    with pytest.raises(InputError, match=r"fitted on imported predictions .* fit on that"):
        world.classify(tmp_path / "out", policy=str(tmp_path / "p"))


def test_a_run_with_nothing_to_do_keeps_the_receipt_of_the_one_that_did_it(
    world: Any, tmp_path: Path
) -> None:
    world.classify(tmp_path / "out")
    receipt = (tmp_path / "out/_receipt.json").read_text()
    assert "nothing to do" in world.classify(tmp_path / "out").text()
    assert (tmp_path / "out/_receipt.json").read_text() == receipt


def test_routed_images_are_the_extracted_ones_though_only_some_networks_are_loaded(
    world: Any, tmp_path: Path
) -> None:
    """A JPEG is decoded as the file says, also where only the small network runs."""
    networks = Path(world.networks_file(tmp_path / "n"))
    networks.write_text(networks.read_text().replace("decode_side = 24\n", "decode_side = 84\n"))
    rng = np.random.default_rng(0)
    images = [tiny.image_bytes(rng, (192, 240), "JPEG") for _ in range(20)]
    given = {
        "networks": str(networks),
        "input": (str(tiny.write_tar(tmp_path / "s.tar", tiny_images.members(images, [0] * 20))),),
    }
    world.extract(output=str(tmp_path / "table"), **given)
    table = read_table(str(tmp_path / "table"))
    fingerprints = {"small": table.networks["small"].fingerprint}
    bundle = Bundle(always(table.graph, "small"), table.class_names, fingerprints)
    write_bundle(str(tmp_path / "p"), bundle)
    for isolate in (False, True):
        output = tmp_path / f"out {isolate}"
        world.classify(output, policy=str(tmp_path / "p"), isolate_decode=isolate, **given)
        rows = pq.read_table(output / "s.parquet").to_pylist()
        assert [row["key"] for row in rows] == list(table.keys)
        found = np.array([row["probabilities"] for row in rows])
        wanted = table.outputs["small"].probabilities[:, : found.shape[1]]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
