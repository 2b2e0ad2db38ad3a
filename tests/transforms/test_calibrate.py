from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from transforms import calibrate
from transforms.calibrate import Timing, measure_stages
from transforms.networks_file import read_networks
from transforms.stages import Engine

EXIT = "small.block1.exit"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path: Path = tiny.write_networks(tmp_path_factory.mktemp("networks"))
    head = tiny.head(np.random.default_rng(0))
    return Engine(read_networks(str(path)), "cpu", heads={EXIT: head})


def measured(engine: Engine, images: int, batch_size: int) -> list[Timing]:
    rng = np.random.default_rng(0)
    encoded = [tiny.image_bytes(rng) for _ in range(images)]
    with ThreadPoolExecutor(2) as pool:
        return measure_stages(engine, encoded, batch_size, 3, pool)


@pytest.mark.parametrize(("images", "batch_size"), [(1, 4), (3, 4), (5, 2)])
def test_every_stage_is_timed_once_at_the_asked_batch_size(
    engine: Engine, images: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, run = set(), engine.run

    def watch(stage: str, made: dict[str, torch.Tensor]) -> torch.Tensor:
        result = run(stage, made)
        sizes.add(len(result))
        return result

    monkeypatch.setattr(engine, "run", watch)
    timings = measured(engine, images, batch_size)
    assert [timing.stage for timing in timings] == [stage.name for stage in engine.graph.stages]
    assert {(timing.batch_size, timing.repeats) for timing in timings} == {(batch_size, 3)}
    assert sizes == {batch_size}


def test_places_for_exits_are_timed_with_random_heads(engine: Engine, tmp_path: Path) -> None:
    bare = Engine(read_networks(str(tiny.write_networks(tmp_path))), "cpu")
    timings = {timing.stage: timing for timing in measured(bare, 2, 4)}
    assert list(timings) == [stage.name for stage in engine.graph.stages]
    assert timings[EXIT].gmac == engine.graph.stage[EXIT].cost
    assert timings[EXIT].median_ms > 0


def test_a_timing_is_a_median_between_its_quartiles_and_knows_the_exact_work(
    engine: Engine,
) -> None:
    for timing in measured(engine, 2, 2):
        low, high = timing.quartiles_ms
        assert 0 < low <= timing.median_ms <= high
        assert timing.gmac == engine.graph.stage[timing.stage].cost


def test_a_time_is_milliseconds_for_one_image_of_the_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "_seconds", lambda *_: [0.2, 0.4, 0.8])
    for timing in measured(engine, 1, 4):
        assert timing.median_ms == pytest.approx(100)
        assert timing.quartiles_ms == pytest.approx((75, 150))


def test_runs_that_warm_up_are_not_timed() -> None:
    calls = []
    seconds = calibrate._seconds(lambda: calls.append(1), 5, torch.device("cpu"))
    assert len(seconds) == 5
    assert len(calls) == 5 + calibrate.WARM_UP


def test_a_gpu_is_waited_for_before_and_after_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: order.append("wait"))
    calibrate._seconds(lambda: order.append("work"), 1, torch.device("cuda:0"))
    assert order == ["wait", "work", "wait"] * (1 + calibrate.WARM_UP)
