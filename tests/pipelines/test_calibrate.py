import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from pipelines import calibrate
from pipelines.calibrate import CalibrateOptions, CalibrateReceipt, run
from policy.bundle import read_bundle
from policy.costs import read_costs
from policy.errors import InputError
from policy.table_manifest import read_manifest


def options(world: Any, output: Path, **changes: Any) -> CalibrateOptions:
    """Small sizes, on one thread."""
    small = {"batch_size": 4, "threads": 1, "decode_threads": 1, "repeats": 3}
    return CalibrateOptions(networks=world.networks, output=str(output), **(small | changes))


@pytest.fixture(scope="module")
def measured(
    world: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], CalibrateReceipt]:
    """What costs.json holds after a run on a shard, and the receipt."""
    output = tmp_path_factory.mktemp("costs") / "costs.json"
    receipt = run(options(world, output, input=(f"{world.folder}/s0.tar",), samples=5))
    return json.loads(output.read_text()), receipt


def test_every_stage_and_exit_of_the_table_has_a_cost(
    world: Any, measured: tuple[dict[str, Any], CalibrateReceipt]
) -> None:
    stages = set(read_manifest(world.table).graph.stage)
    assert measured[0]["unit"] == "ms"
    assert measured[0]["costs"].keys() == stages | {"small.block1.exit"}
    assert all(cost > 0 for cost in measured[0]["costs"].values())


def test_costs_are_the_medians_at_the_batch_size(
    measured: tuple[dict[str, Any], CalibrateReceipt],
) -> None:
    written, receipt = measured
    medians = {t.stage: t.median_ms for t in receipt.timings if t.batch_size == 4}
    assert written["costs"] == medians
    assert {t.batch_size for t in receipt.timings} == {1, 4}
    for timing in receipt.timings:
        low, high = timing.quartiles_ms
        assert low <= timing.median_ms <= high


def test_the_costs_say_where_they_come_from(
    measured: tuple[dict[str, Any], CalibrateReceipt],
) -> None:
    about = measured[0]["about"]
    assert about["samples"] == 5
    assert about["source"][0].endswith("s0.tar")
    assert about["threads"] == about["decode_threads"] == 1
    assert about["torch"] == torch.__version__
    assert about["device"].startswith("CPU ")
    assert len(about["timings"]) == len(measured[1].timings)


def test_the_receipt_is_a_table_of_all_timings(
    measured: tuple[dict[str, Any], CalibrateReceipt],
) -> None:
    lines = measured[1].text().splitlines()
    assert "costs.json: measured on CPU" in lines[0]
    assert len(lines) == 2 + len(measured[1].timings)


def test_a_policy_can_be_fitted_for_measured_costs(world: Any, tmp_path: Path) -> None:
    run(options(world, tmp_path / "costs.json", more_batch_sizes=()))
    assert read_costs(str(tmp_path / "costs.json")).about["samples"] == 2  # two photographs
    costs = str(tmp_path / "costs.json")
    receipt = world.fit(policy=str(tmp_path / "p"), costs=costs)
    assert receipt.measured.unit == "ms"
    evidence = read_bundle(str(tmp_path / "p")).evidence
    assert evidence is not None
    assert evidence.calibration == read_costs(costs).calibration
    assert (evidence.calibration.batch_size, evidence.calibration.threads) == (4, 1)


def test_threads_left_to_the_machine_are_counted(world: Any, tmp_path: Path) -> None:
    run(options(world, tmp_path / "costs.json", decode_threads=0, more_batch_sizes=()))
    assert read_costs(str(tmp_path / "costs.json")).about["decode_threads"] == os.cpu_count()


def test_broken_images_are_not_measured_with(world: Any, tmp_path: Path) -> None:
    image = tiny.image_bytes(np.random.default_rng(0))
    members = [("a.png", b"broken"), ("b.json", b"{}"), ("c.png", image)]
    shard = tiny.write_tar(tmp_path / "s.tar", members)
    run(options(world, tmp_path / "costs.json", input=(str(shard),)))
    assert read_costs(str(tmp_path / "costs.json")).about["samples"] == 1


@pytest.mark.parametrize("members", [[("b.json", b"{}")], [("a.png", b"broken")]])
def test_a_corpus_without_a_readable_image_is_refused(
    world: Any, tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    shard = tiny.write_tar(tmp_path / "s.tar", members)
    with pytest.raises(InputError, match=r"s.tar: no readable image to measure with"):
        run(options(world, tmp_path / "costs.json", input=(str(shard),)))


@pytest.mark.parametrize("change", [{"repeats": 0}, {"samples": 0}, {"more_batch_sizes": (0,)}])
def test_sizes_below_one_are_refused_by_the_name_of_their_flag(
    world: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    (name,) = change
    with pytest.raises(InputError, match="--" + name.replace("_", "-")):
        run(options(world, tmp_path / "costs.json", input=(f"{world.folder}/s0.tar",), **change))


def test_the_folder_of_the_costs_is_made(world: Any, tmp_path: Path) -> None:
    run(options(world, tmp_path / "new/costs.json", more_batch_sizes=(), repeats=1))
    assert read_costs(str(tmp_path / "new/costs.json")).unit == "ms"


def test_a_gpu_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU at {device}")
    assert calibrate._device_name(torch.device("cuda:1")) == "GPU at cuda:1"
