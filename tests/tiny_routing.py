"""What the tests of the router share: an engine that counts, images, and one run of a policy."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from policy.answers import Answers
from policy.mixture import Routing
from policy.rules import Policy
from transforms.audit import AuditPlan
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.routed import Routed
from transforms.stages import Engine

EXIT = "small.block1.exit"
IMAGES = 240
NEAR = 1e-3
"""Images this close to a cut may fall either way: a batch of another size rounds otherwise."""


class Counting(Engine):
    """An engine that keeps the size of every batch it was given, by stage."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.batches: dict[str, list[int]] = {}
        super().__init__(*args, **kwargs)

    def _count(self, stage: str, n: int) -> None:
        self.batches.setdefault(stage, []).append(n)

    def input_batch(self, stage: str, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        self._count(stage, len(pixels))
        return super().input_batch(stage, pixels)

    def run(self, stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        result = super().run(stage, made)
        self._count(stage, len(result))
        return result

    def answer(self, stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        answers = super().answer(stage, made, k)
        if stage in self.heads:  # other answers go through `run`
            self._count(stage, len(answers))
        return answers


def encoded(rng: np.random.Generator) -> bytes:
    """A coarse random picture as PNG, so that pooled features differ between images."""
    height, width = rng.integers(8, 40, size=2)
    coarse = rng.integers(0, 256, (2, 3, 3)) * rng.uniform(0.1, 1)
    pixels = np.kron(coarse, np.ones((1 + height // 2, 1 + width // 3, 1)))
    return to_png(pixels[:height, :width].astype(np.uint8))


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def stripped(item: Prepared, router: Router) -> Prepared:
    """An image as a worker prepares it: only with what the router asks for."""
    pixels = {name: item.pixels[name] for name in router.inputs}
    image = item.image if router.later else None
    return Prepared(item.shard, item.row, item.key, item.label, image=image, pixels=pixels)


@dataclass(frozen=True)
class Run:
    """What came out while feeding and out of the flush, and the batches by stage."""

    batch_size: int
    fed: list[Routed]
    flushed: list[Routed]
    batches: dict[str, list[int]]

    @property
    def groups(self) -> list[Routed]:
        return self.fed + self.flushed

    def images(self) -> Counter[str]:
        return Counter({stage: sum(sizes) for stage, sizes in self.batches.items()})


def route(
    policy: Routing,
    engine: Counting,
    items: Sequence[Prepared],
    batch_size: int,
    topk: int = 2,
    audit: AuditPlan | None = None,
) -> Run:
    """Feed all images, then flush."""
    engine.batches = {}
    with ThreadPoolExecutor(2) as pool:
        router = Router(policy, engine, batch_size, topk, pool, audit)
        fed = [group for item in items for group in router.feed(stripped(item, router))]
        return Run(batch_size, fed, list(router.flush()), engine.batches)


def rows_of(groups: list[Routed]) -> Iterator[tuple[int, tuple[str, ...], float, int]]:
    """(row, trail, cost, label) of every image in the order in which they came out."""
    for group in groups:
        for item, best in zip(group.items, group.answers.classes[:, 0], strict=True):
            yield item.row, group.trail, group.cost, int(best)


def near_a_cut(policy: Policy, outputs: dict[str, Answers]) -> NDArray[np.bool_]:
    """[n], where some rule could fall either way, or some classes are as good as equally ranked."""
    near = np.zeros(len(outputs[policy.start]), dtype=bool)
    for trail in policy.trails:
        got = {answer: outputs[answer] for answer in trail}
        for answers in (*got.values(), policy.label(got)):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = answers.probabilities[:, :-1] / answers.probabilities[:, 1:]
            near |= (ratio < 1 + NEAR).any(axis=1)
        if trail[-1] in policy.rule:
            near |= policy.rule[trail[-1]].distance_to_cut(policy.seen(got)) < NEAR
    return near
