"""Measuring what each stage costs on this machine: milliseconds per image, by batch size."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from policy.graph import Stage
from policy.heads import Head
from policy.table import exit_of
from transforms.decode_limits import DEFAULT_LIMITS, DecodeLimits
from transforms.images import decode
from transforms.resize import fit
from transforms.stages import DECODE, Engine

WARM_UP = 2


@dataclass(frozen=True)
class Timing:
    """Milliseconds per image of one stage at one batch size: median and quartiles of `repeats`."""

    stage: str
    batch_size: int
    median_ms: float
    quartiles_ms: tuple[float, float]
    gmac: float
    repeats: int


@torch.inference_mode()
def measure_stages(
    engine: Engine,
    encoded: Sequence[bytes],
    batch_size: int,
    repeats: int,
    pool: Executor,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> list[Timing]:
    """Time every stage of an engine on these images, repeated to fill a batch.

    Decoding and resizing are timed on `pool` as a worker runs them: with t threads, an image costs
    1/t of its work. Each place for an exit is timed too, with random weights where the engine has
    no head for it: what a head costs does not depend on its weights, so fitting comes later.
    """
    batch = [encoded[i % len(encoded)] for i in range(batch_size)]
    decoding = partial(pool.map, partial(decode, limits=limits, side=engine.decode_side), batch)
    images = list(decoding())
    trunks = {trunk for trunks in engine.trunks.values() for trunk in trunks}
    made: dict[str, torch.Tensor] = {}
    timings = []
    for stage in engine.graph.stages:
        work = _work_of(stage, engine, decoding, images, made, pool)
        timings.append(_timing(stage, work, engine, batch_size, repeats))
        result = work()
        if isinstance(result, torch.Tensor):
            made[stage.name] = result
        if stage.name in trunks and exit_of(stage.name) not in engine.heads:
            exit_stage, work = _random_exit(stage.name, engine, made[stage.name])
            timings.append(_timing(exit_stage, work, engine, batch_size, repeats))
    return timings


def _timing(
    stage: Stage, work: Callable[[], object], engine: Engine, batch_size: int, repeats: int
) -> Timing:
    seconds = _seconds(work, repeats, engine.device)
    low, median, high = (float(s) for s in np.percentile(seconds, (25, 50, 75)) / batch_size * 1e3)
    return Timing(stage.name, batch_size, median, (low, high), stage.cost, repeats)


def _random_exit(
    trunk: str, engine: Engine, made: torch.Tensor
) -> tuple[Stage, Callable[[], object]]:
    """An exit after a trunk with a head of random weights, and what a worker does for it."""
    shape = (len(engine.class_names), engine.features(made[:1]).shape[1])
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    head = Head(weight, np.zeros(shape[0], dtype=np.float32))
    stage = Stage(exit_of(trunk), weight.size / 1e9, (trunk,), answers=True)
    return stage, lambda: head.answers(engine.features(made), 5)


def _work_of(
    stage: Stage,
    engine: Engine,
    decoding: Callable[[], Iterable[NDArray[np.uint8]]],
    images: Sequence[NDArray[np.uint8]],
    made: Mapping[str, torch.Tensor],
    pool: Executor,
) -> Callable[[], object]:
    """What a worker does for this stage and one batch."""
    name = stage.name
    if name == DECODE:
        return lambda: list(decoding())
    if name in engine.inputs:
        specs = [engine.inputs[name]] * len(images)
        return lambda: engine.input_batch(name, list(pool.map(fit, images, specs)))
    if stage.answers:
        return lambda: engine.answer(name, made, 5)
    return lambda: engine.run(name, made)


def _seconds(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs, after warming up."""
    seconds = []
    for _ in range(WARM_UP + repeats):
        _wait_for(device)
        start = time.perf_counter()
        work()
        _wait_for(device)
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
