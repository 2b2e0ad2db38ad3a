import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.verify import VerifyOptions, run
from policy.errors import Damaged, InputError
from policy.manifest import written
from policy.rows import LABELS_SCHEMA, parquet_bytes


@pytest.fixture(scope="module")
def made(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, not to be changed."""
    output = tmp_path_factory.mktemp("labels") / "out"
    world.classify(output)
    return output


@pytest.fixture
def labels(made: Path, tmp_path: Path) -> Path:
    """Labels to damage."""
    return Path(shutil.copytree(made, tmp_path / "labels"))


def verify(folder: Path | str) -> Any:
    return run(VerifyOptions(output=str(folder)))


def resum(labels: Path, name: str) -> None:
    """Make the manifest agree with a file as it is now, as one who tampers would."""
    path = labels / "_manifest.json"
    manifest = json.loads(path.read_text())
    found = written((labels / name).read_bytes())
    manifest["files"][name] |= {"bytes": found.bytes, "sha256": found.sha256}
    path.write_text(json.dumps(manifest))


def test_labels_are_what_their_manifest_says(made: Path) -> None:
    receipt = verify(f"{made}/")
    assert (receipt.files, receipt.shards, receipt.records) == (6, 3, 126)
    assert receipt.bytes == sum(path.stat().st_size for path in made.glob("s*"))
    assert receipt.strays == ()
    assert receipt.text() == (
        f"{made}: 6 files of 3 shards with 126 records, {receipt.bytes / 1e6:.1f} MB, are what the "
        "manifest says"
    )


def test_a_table_is_what_its_manifest_says(world: Any) -> None:
    receipt = verify(world.table)
    assert (receipt.files, receipt.shards, receipt.records) == (9 + 6, 3, 126)


def test_any_bit_of_any_file_that_flips_is_told(world: Any, labels: Path, tmp_path: Path) -> None:
    table = Path(shutil.copytree(world.table, tmp_path / "copy"))
    rng = np.random.default_rng(0)
    for root, pattern in ((labels, "s*"), (table, "*/**/*.*")):
        for path in sorted(path for path in root.glob(pattern) if path.is_file()):
            whole = path.read_bytes()
            at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
            with pytest.raises(Damaged, match=rf"{path.name}: SHA-256 \w+…, wanted \w+…"):
                verify(root)
            path.write_bytes(whole)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"s1.parquet: \d+ bytes, wanted \d+"),
    (lambda path: path.unlink(), "s1.parquet: a file of the manifest cannot be read"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_file_cut_or_gone_is_told_with_the_remedy(
    labels: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(labels / "s1.parquet")
    with pytest.raises(Damaged, match=f"1 problems: .*{message}.* Delete the damaged files"):
        verify(labels)


def test_rows_that_were_taken_away_are_told_though_the_sums_agree(labels: Path) -> None:
    rows = pq.read_table(labels / "s1.parquet").to_pylist()[:-1]
    (labels / "s1.parquet").write_bytes(parquet_bytes(rows, LABELS_SCHEMA, {}))
    resum(labels, "s1.parquet")
    with pytest.raises(Damaged, match=r"2 problems: s1.json: speaks of another s1.parquet .*41 ro"):
        verify(labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 and nothing else PAR1", "s1.parquet: cannot be read"),
        (None, "s1.parquet: has other columns than adalabel writes"),
    ],
)
def test_what_is_no_file_of_labels_is_told_though_the_sums_agree(
    labels: Path, content: bytes | None, message: str
) -> None:
    if content is None:
        table = pq.read_table(labels / "s1.parquet").drop_columns(["trail"])
        pq.write_table(table, labels / "s1.parquet")
    else:
        (labels / "s1.parquet").write_bytes(content)
    resum(labels, "s1.parquet")
    with pytest.raises(Damaged, match=message):
        verify(labels)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"files": {}}', '{"files": 3}', '{"files": {"s1.parquet": {}}}']
)
def test_what_marks_no_shard_as_done_is_told(labels: Path, text: str) -> None:
    (labels / "s1.json").write_text(text)
    resum(labels, "s1.json")
    with pytest.raises(Damaged, match=r"s1.json: "):
        verify(labels)


def test_a_manifest_that_leaves_a_file_out_is_told(labels: Path) -> None:
    path = labels / "_manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["s1.parquet"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=r"s1.parquet: the manifest does not say what is in it"):
        verify(labels)


def test_files_that_are_not_part_of_the_result_are_named_and_do_no_harm(labels: Path) -> None:
    for number in range(12):
        (labels / f"x{number}\x1b.parquet").write_bytes((labels / "s1.parquet").read_bytes())
    (labels / "mine.json").write_text("{}")
    receipt = verify(labels)
    assert len(receipt.strays) == 12
    assert "12 files are not part of the result: x0\\x1b.parquet, " in receipt.text()


def test_a_folder_without_a_result_is_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest .* so no finished result$"):
        verify(tmp_path / "nowhere")
    (labels / "_manifest.json").unlink()
    with pytest.raises(InputError, match="only what a run has begun: run the same command again"):
        verify(labels)
