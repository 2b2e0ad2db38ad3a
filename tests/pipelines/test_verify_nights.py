"""Verifying the labels of many nights against their one manifest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_images
from nights import Nights

from pipelines.verify import VerifyOptions, VerifyReceipt, run
from policy.errors import Damaged, InputError


@pytest.fixture
def nights(world: Any, tmp_path: Path) -> Nights:
    """Three shards of four images, of two nights, one of them rewritten."""
    found, rng = Nights(tmp_path / "job"), np.random.default_rng(0)
    found.write_job(world.networks)
    found.publish(world.policy)
    for names in (("a", "b"), ("a", "c")):
        for name in names:
            found.shard(name, [tiny_images.tinted(rng) for _ in range(4)])
        assert found.night().exit_code == 0
    return found


def verify(nights: Nights) -> VerifyReceipt:
    return run(VerifyOptions(output=str(nights.output)))


def test_the_files_of_the_manifest_are_checked_and_superseded_ones_are_no_strays(
    nights: Nights,
) -> None:
    found = verify(nights)
    assert (found.files, found.shards, found.records, found.strays) == (6, 3, 12, ())
    nights_of = nights.manifest()["night_of"]
    assert {shard: night[:4] for shard, night in nights_of.items()} == {
        "a": "0002",
        "b": "0001",
        "c": "0002",
    }
    for night in nights.output.glob("nights/*"):
        assert run(VerifyOptions(output=str(night))).records == 8


def test_a_damaged_shard_is_named_and_mended_by_touching_it(nights: Nights) -> None:
    (old,) = nights.output.glob("nights/0001-*/a.parquet")
    old.write_bytes(b"superseded, so nobody looks")
    assert verify(nights).records == 12
    (path,) = nights.output.glob("nights/0001-*/b.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"1 problems: b.parquet: \d+ bytes, wanted \d+. Touch these"):
        verify(nights)
    (nights.folder / "corpus/b.tar").touch()
    assert nights.night().nights[0].rewritten == 1
    assert verify(nights).records == 12


def drop_night(manifest: dict[str, Any]) -> None:
    del manifest["night_of"]["b"]


def swap_night(manifest: dict[str, Any]) -> None:
    manifest["night_of"]["b"] = manifest["night_of"]["a"]


@pytest.mark.parametrize("change", [drop_night, swap_night])
def test_a_manifest_that_mixes_nights_is_noticed(
    nights: Nights, change: Callable[[dict[str, Any]], None]
) -> None:
    manifest = nights.manifest()
    change(manifest)
    (nights.output / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=r"1 problems: b: its files are not all of its night "):
        verify(nights)


def test_before_the_first_night_has_closed_there_is_nothing_to_verify(nights: Nights) -> None:
    (nights.output / "_manifest.json").unlink()
    with pytest.raises(InputError, match="only what a run has begun: run the same command again"):
        verify(nights)
