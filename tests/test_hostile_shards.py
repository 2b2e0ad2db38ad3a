"""Files made to break readers of tar, Parquet and TFRecord: each ends in rows with reasons."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_data import HOSTILE, needs

CHILD = Path(__file__).parent / "hostile_child.py"
FOLDERS = ("tar-*", "generated/tar", "parquet-*", "generated/parquet", "generated/tfrecord")

pytestmark = needs("hostile files", HOSTILE)

NAMES = ("absolute", "control", "deep", "dotdot", "newline")

OURS: dict[str, tuple[dict[str, int], str]] = {
    # file: (our rows by status, why ours is not what EXPECT.csv says, "" if it is)
    "tar/plain.tar": ({"ok": 8}, ""),
    "tar/plain.tar.gz": ({"ok": 8}, ""),
    "tar/all_zero.tar": ({}, ""),
    "tar/empty_valid.tar": ({}, ""),
    "tar/zero_bytes.tar": ({"container": 1}, ""),
    "tar/claims_1TiB.tar": ({"ok": 2, "container": 1}, ""),
    "tar/cut_between_jpg_and_cls.tar": (
        {"ok": 4, "container": 1},
        "the image before the cut is a row whose label is reported as lost; the cut is a row",
    ),
    "tar/no_end_blocks.tar": (
        {"ok": 8, "container": 1},
        "the warning is a row: a cut at the same place looks no different",
    ),
    "tar/garbage_tail.tar": (
        {"ok": 8, "container": 1},
        "what follows the end mark may be records behind a zeroed page, so it is a row",
    ),
    "tar/missing_label.tar": ({"ok": 8}, "an image needs no label to be classified"),
    "tar/missing_image.tar": ({"ok": 7, "no_image": 1}, ""),
    "tar/gz_bomb.tar.gz": ({"too_large": 1, "container": 1}, ""),
    "tar/fifo.tar": ({"ok": 2, "no_image": 1}, ""),
    "tar/hardlink.tar": ({"ok": 2, "no_image": 1}, ""),
    "tar/symlink.tar": ({"ok": 2, "no_image": 1}, ""),
    "tar/symlink_then_file.tar": ({"ok": 1, "no_image": 1}, ""),
    **{f"tar/name_{n}.tar": ({"ok": 3}, "") for n in NAMES},
    "parquet/plain.parquet": (
        {"container": 1},
        "a table of answers without a column image, as are all generated Parquet files",
    ),
    "tfrecord/plain.tfrecord": (
        {"no_image": 20},
        "its data are no tf.train.Example: 20 records, each rejected",
    ),
    "tfrecord/cut_at_boundary.tfrecord": ({"no_image": 10}, "as above; only a manifest can tell"),
    "tfrecord/length_1TiB.tfrecord": ({"no_image": 4, "container": 1}, ""),
    "tfrecord/bad_data_crc.tfrecord": ({"no_image": 19, "container": 1}, ""),
    "tfrecord/zero_bytes.tfrecord": ({}, ""),
}


def files() -> list[Path]:
    return sorted(
        file
        for folder in FOLDERS
        for place in HOSTILE.glob(folder)
        for file in place.rglob("*")
        if file.is_file()
    )


def outcomes(paths: list[Path], *flags: str) -> list[dict[str, Any]]:
    """What the child says of each; it may not die."""
    ran = subprocess.run(
        [sys.executable, str(CHILD), *flags],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        cwd=CHILD.parent.parent,
        env=os.environ | {"PYTHONPATH": str(CHILD.parent.parent)},
    )
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    died_at = paths[len(found)] if len(found) < len(paths) else None
    assert ran.returncode == 0, (died_at, ran.returncode, ran.stderr[-2000:])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--any-column",)], ids=["as-shards", "all-columns"])
def test_every_hostile_file_ends_in_rows_that_are_counted_and_explained(
    flags: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    found = outcomes(files(), *flags)
    assert len(found) > 100
    for outcome in found:
        assert outcome["records"] == outcome["counted"], outcome
        assert outcome["unexplained"] == 0, outcome
    assert max(outcome["peak_mb"] for outcome in found) < 2000
    record_property("peak_mb", max(outcome["peak_mb"] for outcome in found))
    record_property("slowest", str(max(found, key=lambda outcome: outcome["seconds"])))


@pytest.mark.slow
def test_the_outcome_of_generated_files_is_the_expected_or_differs_for_a_reason() -> None:
    with (HOSTILE / "generated" / "EXPECT.csv").open() as file:
        expected = {row["file"] for row in csv.DictReader(file)}
    assert set(OURS) <= expected
    paths = [HOSTILE / "generated" / name for name in OURS]
    for name, outcome in zip(OURS, outcomes(paths), strict=True):
        assert outcome["statuses"] == OURS[name][0], (name, outcome)
