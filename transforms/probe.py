"""Trying every stage on two images before the first real one: what is wrong is found at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError, shown
from policy.graph import StageGraph
from policy.heads import Head
from transforms.careful import DeviceLost, is_lost
from transforms.images import InputSpec

_NEAR = 1e-3
"""On a GPU two runs may add in another order; on a CPU they must be equal bit for bit."""


class Runs(Protocol):
    """What can be probed (see stages.Engine)."""

    device: torch.device
    class_names: tuple[str, ...]
    heads: dict[str, Head]
    inputs: dict[str, InputSpec]
    unpriced: StageGraph

    def input_batch(self, stage: str, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Normalised images."""

    def run(self, stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What one stage makes."""

    def answer(self, stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        """What one stage answers."""


@torch.inference_mode()
def probe(engine: Runs) -> None:
    """Run every stage twice on a dark and a bright image of noise.

    Raises InputError on a head of other classes or features, on a stage that fails or answers
    differently the second time, and on an answer that is finite for neither image.
    """
    for name, head in engine.heads.items():
        if len(head.bias) != len(engine.class_names):
            raise InputError(
                f"exit {name!r}: its head knows {len(head.bias)} classes; wanted "
                f"{len(engine.class_names)}, one for each name of the class list. Fit it again."
            )
    first, second = _answers(engine), _answers(engine)
    for stage, answers in first.items():
        if not answers.finite.any():
            raise InputError(
                f"{stage!r} gives NaN or infinity for both probe images, a dark and a bright one "
                "of noise. Look at its weights and at mean and std of its input."
            )
        if not _same(answers, second[stage], exact=engine.device.type == "cpu"):
            raise InputError(
                f"{stage!r} answers differently when the same two images are run again, so no "
                "policy can promise anything for it. Take the randomness out of its forward."
            )


def _images(spec: InputSpec) -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(0).integers(0, 120, (*spec.size, 3), dtype=np.uint8)
    return [noise, 255 - noise]


def _answers(engine: Runs) -> dict[str, Answers]:
    made: dict[str, torch.Tensor] = {}
    answers: dict[str, Answers] = {}
    for stage in engine.unpriced.stages:
        try:
            if stage.answers:
                answers[stage.name] = engine.answer(stage.name, made, None)
            elif stage.name in engine.inputs:
                pixels = _images(engine.inputs[stage.name])
                made[stage.name] = engine.input_batch(stage.name, pixels)
            elif all(need in made for need in stage.needs):  # not the decoding
                made[stage.name] = engine.run(stage.name, made)
        except InputError as error:
            raise InputError(f"{stage.name!r}: {error}") from error
        except Exception as error:
            said = f"{stage.name!r} fails on two images of noise: {type(error).__name__}: "
            kind = DeviceLost if is_lost(error) else InputError
            raise kind(f"{said}{shown(error)}") from error
    return answers


def _same(first: Answers, second: Answers, *, exact: bool) -> bool:
    near = 0.0 if exact else _NEAR
    pairs = ((first.probabilities, second.probabilities), (first.entropy, second.entropy))
    return all(np.allclose(a, b, rtol=near, atol=near, equal_nan=True) for a, b in pairs)
