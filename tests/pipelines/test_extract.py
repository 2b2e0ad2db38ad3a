import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from pipelines.accounting import Account
from pipelines.extract import ExtractReceipt
from policy.errors import InputError, TooManyBad
from policy.rows import OK
from policy.table import read_table
from policy.table_manifest import read_manifest


def contents(folder: Path | str) -> dict[str, bytes]:
    """All files of a table by their path in it."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def times(folder: Path | str) -> dict[str, int]:
    """When each Parquet file was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*.parquet")}


def assert_same_table(one: str, other: str) -> None:
    """The same rows in the same order; floats may differ in their last bits."""
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    one_says, other_says = (read_manifest(table) for table in (one, other))
    assert one_says.files.keys() == other_says.files.keys()  # floats differ, so do the sums
    assert replace(one_says, files={}) == replace(other_says, files={})
    for name in (name for name in left if name.endswith(".parquet")):
        a, b = (pq.read_table(f"{table}/{name}") for table in (one, other))
        floats = {"probabilities", "entropy", "features"} & set(a.column_names)
        assert a.drop_columns(list(floats)).equals(b.drop_columns(list(floats)))
        for column in floats:
            for x, y in zip(a[column].to_pylist(), b[column].to_pylist(), strict=True):
                assert (x is None) == (y is None)
                if x is not None:
                    np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-4)


def test_the_table_has_a_row_for_every_record_in_order(world: Any) -> None:
    keys = pq.read_table(f"{world.table}/answers/small/s1.parquet")["key"].to_pylist()
    assert keys == [f"s1/{number:04d}" for number in range(42)]
    table = read_table(world.table)
    assert len(table.keys) == 125
    assert table.rejected == {"decode": 1}


def test_a_broken_image_is_a_row_with_a_reason_and_no_answer(world: Any) -> None:
    row = pq.read_table(f"{world.table}/answers/big/s1.parquet").to_pylist()[7]
    assert row["key"] == "s1/0007"
    assert (row["status"], row["classes"], row["label"]) == ("decode", None, None)
    assert "not an image" in row["error"]


def test_the_receipt_says_what_was_run(world: Any, tmp_path: Path) -> None:
    receipt = replace(world, table=str(tmp_path / "table")).extract()
    assert (receipt.shards, receipt.records) == (3, 126)
    assert receipt.networks_run == ("small", "big")
    assert receipt.account.rejected == {"decode": 1}
    assert "3 shards; ran small, big in" in receipt.text()
    assert "126 records: 125 labelled, rejected: 1 decode, 0 duplicates, 0 una" in receipt.text()
    assert f"see status and error in {tmp_path}/table/answers" in receipt.text()
    assert "% stage big" in receipt.text()


def test_a_receipt_of_nothing_says_so() -> None:
    text = ExtractReceipt("out", 1, 2, (), Account(2, 2, {}, 0, {}, 0), 0, 0.0, {}).text()
    assert "ran nothing (all done before)" in text
    assert text.endswith("rejected: none, 0 duplicates, 0 unaccounted")


@pytest.mark.parametrize("change", [str, "{}/".format], ids=["the same", "with a slash"])
def test_running_again_does_nothing(world: Any, tmp_path: Path, change: Any) -> None:
    mine = world.at(tmp_path)
    before, written = contents(mine.table), times(mine.table)
    assert mine.extract(output=change(mine.table)).networks_run == ()
    assert contents(mine.table) == before
    assert times(mine.table) == written


def test_running_again_by_a_relative_path_does_nothing(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = world.at(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert mine.extract(output="table").networks_run == ()


def test_a_table_may_lie_in_a_folder_with_brackets(world: Any, tmp_path: Path) -> None:
    table = str(tmp_path / "run[1]")
    world.extract(output=table)
    assert world.extract(output=table).networks_run == ()


def test_a_killed_run_continues_to_the_undisturbed_table(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    table = Path(mine.table)
    for name in (
        "manifest.json",
        "answers/big/s0.parquet",
        "answers/small/s1.parquet",
        "features/small.block1/s2.parquet",
    ):
        (table / name).unlink()
    mine.extract()
    assert_same_table(mine.table, world.table)


def test_a_killed_run_is_no_table_yet(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    Path(mine.table, "manifest.json").unlink()
    with pytest.raises(InputError, match="no finished table; run `adalabel extract`"):
        read_table(mine.table)


def test_a_killed_run_does_not_go_on_with_another_topk(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    for name in ("manifest.json", "answers/big/s0.parquet"):
        Path(mine.table, name).unlink()
    with pytest.raises(
        InputError, match="made with --topk 0, this run has 2; choose another --out"
    ):
        mine.extract(topk=2)


def test_a_network_added_later_leaves_the_other_files_untouched(world: Any, tmp_path: Path) -> None:
    mine = replace(world, table=str(tmp_path / "table"))
    mine.extract(networks=world.networks_file(tmp_path / "one", ["big"]))
    before, written = contents(mine.table), times(mine.table)
    assert mine.extract().networks_run == ("small",)
    after = contents(mine.table)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    assert written.items() <= times(mine.table).items()
    assert read_manifest(mine.table).networks == read_manifest(world.table).networks
    assert len(read_table(mine.table).outputs) == 2


def test_shards_added_later_leave_the_other_files_untouched(world: Any, tmp_path: Path) -> None:
    mine = replace(world, table=str(tmp_path / "table"))
    mine.extract(input=(f"{world.folder}/s0.tar", f"{world.folder}/s2.tar"))
    written = times(mine.table)
    mine.extract(input=(f"{world.folder}/s1.tar",))
    assert written.items() <= times(mine.table).items()
    assert set(read_manifest(mine.table).shards) == {"s0", "s1", "s2"}
    assert sorted(read_table(mine.table).keys) == sorted(read_table(world.table).keys)


def test_a_changed_network_is_refused(world: Any, tmp_path: Path) -> None:
    changed = world.networks_file(tmp_path / "changed", seed=1)
    before = contents(world.table)
    with pytest.raises(
        InputError, match=r"another network 'small' \(fingerprint \w+, now \w+\); rename"
    ):
        world.extract(networks=changed)
    assert contents(world.table) == before


def test_a_changed_network_is_refused_before_the_first_manifest(world: Any, tmp_path: Path) -> None:
    mine = world.at(tmp_path)
    Path(mine.table, "manifest.json").unlink()
    with pytest.raises(InputError, match="was made with fingerprint"):
        mine.extract(networks=world.networks_file(tmp_path / "changed", seed=1))


def test_new_shards_without_an_old_network_are_refused(world: Any, tmp_path: Path) -> None:
    new = tiny.write_tar(tmp_path / "new.tar", tiny.image_members(np.random.default_rng(0), 2))
    with pytest.raises(InputError, match="has network 'big', which the networks file lacks, so sh"):
        world.extract(networks=world.networks_file(tmp_path / "one", ["small"]), input=(str(new),))


def test_a_new_network_without_an_old_shard_is_refused(world: Any, tmp_path: Path) -> None:
    mine = replace(world, table=str(tmp_path / "table"))
    mine.extract(networks=world.networks_file(tmp_path / "one", ["small"]))
    with pytest.raises(
        InputError, match=r"has shard 's0', which --input does not match.*match all 3 shards"
    ):
        mine.extract(input=(f"{world.folder}/s1.tar", f"{world.folder}/s2.tar"))


def test_another_topk_is_refused(world: Any) -> None:
    with pytest.raises(InputError, match="was made with --topk 0, this run has 3; choose another"):
        world.extract(topk=3)


def test_another_class_list_is_refused(world: Any, tmp_path: Path) -> None:
    networks = world.networks_file(tmp_path / "renamed")
    (tmp_path / "renamed/classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(
        InputError, match=r"was made with class list \w+, this run has \w+; choose another"
    ):
        world.extract(networks=networks)


@pytest.mark.parametrize("topk", [-1, -7])
def test_a_negative_topk_is_refused(world: Any, tmp_path: Path, topk: int) -> None:
    with pytest.raises(InputError, match=f"--topk {topk}"):
        world.extract(output=str(tmp_path / "table"), topk=topk)


def test_topk_keeps_the_best_classes_of_the_whole_table(world: Any, tmp_path: Path) -> None:
    world.extract(output=str(tmp_path / "table"), topk=5)
    few, all_ = (
        read_table(table).outputs["big"] for table in (str(tmp_path / "table"), world.table)
    )
    assert (few.classes.shape[1], all_.classes.shape[1]) == (5, 6)
    np.testing.assert_array_equal(few.classes, all_.classes[:, :5])
    np.testing.assert_allclose(few.entropy, all_.entropy, rtol=1e-4)


def test_a_shard_that_changed_since_is_not_taken_for_done(world: Any, tmp_path: Path) -> None:
    shutil.copy(world.folder / "s0.tar", tmp_path / "s0.tar")
    mine = replace(world, table=str(tmp_path / "table"), input=str(tmp_path / "s0.tar"))
    mine.extract()
    tiny.write_tar(tmp_path / "s0.tar", tiny.image_members(np.random.default_rng(0), 5))
    with pytest.raises(InputError, match=r"s0\.tar|'s0'|s0\.parquet"):
        mine.extract()


def test_images_without_an_answer_of_any_network_are_in_the_receipt(
    world: Any, tmp_path: Path
) -> None:
    networks = world.networks_file(tmp_path / "nets")
    weights = load_file(tmp_path / "nets/big.safetensors")
    weights["linear.bias"][0] = torch.finfo(torch.float32).max
    weights["linear.weight"][0] *= -1e33  # so the first logit of some images is infinite
    save_file(weights, tmp_path / "nets/big.safetensors")
    receipt = world.extract(networks=networks, output=str(tmp_path / "table"), max_bad_fraction=1.0)
    rows = pq.read_table(tmp_path / "table/answers/big").to_pylist()
    nonfinite = [row for row in rows if row["status"] == "nonfinite"]
    assert 0 < len(nonfinite) < len(rows) - 1
    assert all(row["classes"] is None and "gave NaN" in row["error"] for row in nonfinite)
    assert all(row["classes"] for row in rows if row["status"] == OK)
    assert receipt.account.rejected == {"decode": 1, "nonfinite": len(nonfinite)}


def test_labels_that_are_no_class_are_rejected(world: Any, tmp_path: Path) -> None:
    image = tiny.image_bytes(np.random.default_rng(0))
    members = [("a.cls", b"6"), ("a.png", image), ("b.cls", b"x"), ("b.png", image)]
    members += [("c.cls", b"5"), ("c.png", image)]
    shard = tiny.write_tar(tmp_path / "s.tar", members)
    receipt = world.extract(
        output=str(tmp_path / "table"), input=(str(shard),), max_bad_fraction=0.7
    )
    assert receipt.account.rejected == {"label": 2}


def test_an_input_that_matches_nothing_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matches no file"):
        world.extract(output=str(tmp_path / "table"), input=(str(tmp_path / "*.tar"),))
    assert not (tmp_path / "table").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_missing_gpu_is_an_error_with_the_remedy(world: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--device cuda: .* sees 0 GPUs.*--device cpu"):
        world.extract(output=str(tmp_path / "table"), device="cuda")


def test_images_without_a_label_are_told_of(world: Any, tmp_path: Path) -> None:
    members = tiny.image_members(np.random.default_rng(0), 5)
    images = [(name, content) for name, content in members if name.endswith(".png")]
    shard = tiny.write_tar(tmp_path / "s.tar", images)
    receipt = world.extract(input=(str(shard),), output=str(tmp_path / "table"))
    assert (receipt.records, receipt.account.rejected, receipt.unlabelled) == (5, {}, 5)
    assert "5 without a label" in receipt.text()


def test_an_extraction_without_one_good_image_ends_with_an_error(
    world: Any, tmp_path: Path
) -> None:
    (tmp_path / "s.tar").write_text("not a tar at all")
    with pytest.raises(
        TooManyBad,
        match=r"1 of 1 records were rejected \(1 container\), 100.0%; allowed is",
    ):
        world.extract(input=(str(tmp_path / "s.tar"),), output=str(tmp_path / "table"))


def networks_of(world: Any, folder: Path, names: tuple[str, ...], line: str) -> str:
    path = Path(world.networks_file(folder, names))
    path.write_text(path.read_text().replace("decode_side = 24\n", line))
    return str(path)


@pytest.mark.parametrize("line", ["", "decode_side = 16\n"])
def test_a_larger_network_is_added_later(world: Any, tmp_path: Path, line: str) -> None:
    table = str(tmp_path / "table")
    small = networks_of(world, tmp_path / "small", ("small",), line)
    world.extract(networks=small, output=table)
    written = times(table)
    both = networks_of(world, tmp_path / "both", ("small", "big"), line)
    world.extract(networks=both, output=table)
    assert written.items() <= times(table).items()
    assert read_manifest(table).networks.keys() == {"small", "big"}


def test_networks_are_refused_where_images_would_be_decoded_otherwise(
    world: Any, tmp_path: Path
) -> None:
    table = str(tmp_path / "table")
    small = networks_of(world, tmp_path / "small", ("small",), "decode_side = 28\n")
    world.extract(networks=small, output=table)  # 28: the largest input, once the rule
    both = networks_of(world, tmp_path / "both", ("small", "big"), "")
    with pytest.raises(InputError, match=r"another network 'small' .*decode_side in the networks"):
        world.extract(networks=both, output=table)
