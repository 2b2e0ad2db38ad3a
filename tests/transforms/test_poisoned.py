"""A network that fails on some images, or has too little memory: all others come out as ever."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_routing import EXIT, NEAR, Counting, near_a_cut, route

from policy.answers import Answers
from policy.errors import InputError
from policy.rows import NETWORK, NONFINITE, OK
from policy.rules import Policy
from transforms.careful import Careful, DeviceLost
from transforms.collect import Collector
from transforms.commit import Output
from transforms.extract import ExtractStep, TableOptions, run_all
from transforms.extract_table import Extracted
from transforms.label_rows import LabelStep
from transforms.label_table import Labels
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.routed import Routed

STAGES = ("small.block1", EXIT, "small", "big")
SOME = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextmanager
def poisoned(  # noqa: C901 - three doubles that share what is poisoned
    engine: Counting, stage: str, bad: Sequence[Prepared], most: int, error: Exception
) -> Iterator[None]:
    """The stage raises `error` on batches that hold one of these images, and above `most`."""
    name = next(n for n in engine.inputs if n in {s.name for s in engine.graph.needed([stage])})
    marks = [item.pixels[name] for item in bad]
    run, answer, make = engine.run, engine.answer, engine.input_batch
    now: list[Sequence[NDArray[np.uint8]]] = []

    def watched_input(of: str, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        tensor = make(of, pixels)
        if of == name:  # the stage sees it in tensors: mark them where it is poisoned
            hit = [any(np.array_equal(p, mark) for mark in marks) for p in pixels]
            tensor[torch.tensor(hit, dtype=torch.bool)] = MARK
        now[:] = [pixels]
        return tensor

    def check(of: str, made: Mapping[str, torch.Tensor]) -> None:
        if of != stage:
            return
        tensors = [made[need] for need in engine.graph.stage[of].needs]
        if len(tensors[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any((tensor.abs() > MARK / 1e3).any() for tensor in tensors):
            raise error

    def watched_run(of: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        check(of, made)
        return run(of, made)

    def watched_answer(of: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        if of in engine.heads:  # other answers go through `run`
            check(of, made)
        return answer(of, made, k)

    engine.careful = Careful("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run", watched_run)
        patch.setattr(engine, "answer", watched_answer)
        patch.setattr(engine, "input_batch", watched_input)
        yield
    engine.careful = Careful("cpu")


MARK = 1e4


def found(groups: Sequence[Routed]) -> dict[int, tuple[Any, ...]]:
    """Row -> status, trail, cost and label of every image."""
    rows = {}
    for group in groups:
        for n, item in enumerate(group.items):
            label = int(group.answers.classes[n, 0]) if group.answers and group.status == OK else -1
            assert item.row not in rows
            rows[item.row] = (group.status, group.trail, group.cost, label)
    return rows


@pytest.fixture(scope="session")
def plain(policy: Policy, counting: Counting, images: list[Prepared]) -> dict[int, tuple[Any, ...]]:
    return found(route(policy, counting, images, 32).groups)


@SOME
@given(
    bad=st.sets(st.integers(0, 119), max_size=7),
    batch_size=st.integers(1, 64),
    most=st.integers(1, 80),
    stage=st.sampled_from(["small.block1", EXIT]),
)
def test_exactly_the_poisoned_images_fail_and_all_others_are_routed_as_ever(  # noqa: PLR0913, PLR0917 - fixtures and what is drawn
    policy: Policy,
    counting: Counting,
    images: list[Prepared],
    outputs: dict[str, Answers],
    plain: dict[int, tuple[Any, ...]],
    bad: set[int],
    batch_size: int,
    most: int,
    stage: str,
) -> None:
    some = images[:120]
    with poisoned(counting, stage, [some[n] for n in bad], most, ValueError("odd pixel")):
        rows = found(route(policy, counting, some, batch_size).groups)
    assert rows.keys() == set(range(120))
    assert {row for row, (status, *_) in rows.items() if status != OK} == bad
    assert all(rows[row] == (NETWORK, (), 0.0, -1) for row in bad)
    near = near_a_cut(policy, outputs)
    assert all(rows[row] == plain[row] for row in set(range(120)) - bad if not near[row])


def test_an_image_that_fails_late_keeps_its_trail_and_what_it_cost(
    policy: Policy, counting: Counting, images: list[Prepared], plain: dict[int, tuple[Any, ...]]
) -> None:
    late = [row for row, (_, trail, *_) in plain.items() if len(trail) > 1 and trail[1] == "big"]
    run = counting.run
    counting.careful = Careful("cpu")

    def odd(stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if stage == "big":
            raise ValueError(f"odd\n{len(next(iter(made.values())))}")
        return run(stage, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "run", odd)
        groups = route(policy, counting, [images[row] for row in late[:3]], 64).groups
    assert [(g.status, g.trail, g.cost) for g in groups] == [
        (NETWORK, (EXIT,), counting.graph.cost((EXIT,)))
    ] * 3
    assert {group.error for group in groups} == {"big fails: ValueError: odd\\n1"}
    with ThreadPoolExecutor(1) as pool:
        step = LabelStep(Router(policy, counting, 4, 2, pool), Output("nowhere", "run"), {})
    (((item,), block),) = step._place(groups[:1])
    cost = counting.graph.cost((EXIT,))
    error = "big fails: ValueError: odd\\n1"
    assert block == Labels([item.key], (EXIT,), cost, None, NETWORK, error)
    counting.careful = Careful("cpu")


def test_a_failed_image_is_never_compared_with_a_cut(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    compared, split = [], Policy.split

    def watch(self: Policy, trail: Mapping[str, Answers]) -> Any:
        compared.append(len(next(iter(trail.values()))))
        return split(self, trail)

    with (
        poisoned(counting, EXIT, images[:3], 99, ValueError("odd")),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(Policy, "split", watch)
        groups = route(policy, counting, images[:3], 3).groups
    assert compared == []
    assert [group.answers for group in groups] == [None] * 3


def test_the_size_that_fits_is_kept_for_later_batches(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with poisoned(counting, "small.block1", [], 10, ValueError("odd")):
        run = route(policy, counting, images[:128], 32)
        assert counting.careful.fits == {EXIT: 8}
    assert run.batches["small.block1"] == [8] * 16
    assert len(found(run.groups)) == 128


@pytest.mark.parametrize("stage", ["small.block1", "small", "big"])
def test_a_lost_device_stops_the_router(
    stage: str, policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    lost = RuntimeError("CUDA error: device-side assert triggered")
    run = counting.run

    def broken(of: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if of == stage:
            raise lost
        return run(of, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "run", broken)
        with pytest.raises(DeviceLost, match=r"cpu is lost: CUDA error: device-side assert"):
            route(policy, counting, images, 32)


def test_a_network_that_fails_on_everything_stops_the_job(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with (
        poisoned(counting, EXIT, images, 99, TypeError("wrong code")),
        pytest.raises(InputError, match=r"fails on 8 images in a row.*TypeError: wrong code"),
    ):
        route(policy, counting, images, 5)


def extracted(engine: Counting, items: Sequence[Prepared], size: int, folder: Path) -> Any:
    options = TableOptions(Output(str(folder), "run"), None, {name: {} for name in engine.trunks})
    step = ExtractStep(engine, options, size)
    placed = [one for item in items for one in step.take(item)] + list(step.flush())
    collector, number = Collector[Extracted](), {item.row: n for n, item in enumerate(items)}
    for some, block in placed:
        collector.add([replace(item, row=number[item.row]) for item in some], block)
    collector.end("s", len(items))
    ((_, blocks),) = collector.whole()
    step.write(tiny.shard("s", folder / "s.tar"), blocks, 0.0)
    names = ("answers/small", "answers/big", "features/small.block1")
    return [pq.read_table(folder / name / "s.parquet").to_pylist() for name in names]


@SOME
@given(
    bad=st.sets(st.integers(0, 39), max_size=7),
    size=st.integers(1, 40),
    most=st.integers(1, 50),
    stage=st.sampled_from(["small.block1", "small"]),
)
def test_extraction_loses_only_the_poisoned_images_of_the_network_that_fails(  # noqa: PLR0913, PLR0917 - fixtures and what is drawn
    counting: Counting,
    images: list[Prepared],
    tmp_path_factory: pytest.TempPathFactory,
    bad: set[int],
    size: int,
    most: int,
    stage: str,
) -> None:
    items = images[:40]
    with poisoned(counting, stage, [items[n] for n in bad], most, ValueError("odd pixel")):
        small, big, features = extracted(counting, items, size, tmp_path_factory.mktemp("table"))
    pixels = {name: [item.pixels[name] for item in items] for name in counting.inputs}
    answers, pooled = run_all(counting, pixels, None)
    assert [row["status"] for row in big] == [OK] * 40
    for n, (row, feature) in enumerate(zip(small, features, strict=True)):
        assert row["status"] == feature["status"] == (NETWORK if n in bad else OK)
        assert (row["error"] == "small fails: ValueError: odd pixel") == (n in bad)
        assert (row["classes"] is None) == (feature["features"] is None) == (n in bad)
        if n not in bad:
            ordered = np.sort(answers["small"].probabilities[n])[::-1]
            np.testing.assert_allclose(row["probabilities"], ordered, atol=NEAR)
            np.testing.assert_allclose(feature["features"], pooled["small.block1"][n], atol=0.05)


def test_features_beyond_float16_are_rejected_in_extraction_and_in_routing(
    policy: Policy, counting: Counting, images: list[Prepared], tmp_path: Path
) -> None:
    run = counting.run
    counting.careful = Careful("cpu")

    def huge(stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tensor = run(stage, made)
        if stage == "small.block1":
            tensor[1, 0] = 1e6  # a number in float32, infinity in float16
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "run", huge)
        small, big, features = extracted(counting, images[:3], 3, tmp_path)
        rows = found(route(policy, counting, images[:3], 3).groups)
    assert [row["status"] for row in small] == [OK, NONFINITE, OK]
    assert small[1]["error"] == "small.block1 (as float16) gave NaN or infinity"
    assert [row["status"] for row in features] == [OK, NONFINITE, OK]
    assert features[1]["features"] is None
    assert [row["status"] for row in big] == [OK] * 3
    assert rows[1] == (NONFINITE, (EXIT,), counting.graph.cost((EXIT,)), -1)
    assert {rows[0][0], rows[2][0]} == {OK}
