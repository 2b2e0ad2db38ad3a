"""After an alarm shards go through the full network; nothing stays in the policy's router."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_routing import Counting, stripped

from policy.rules import Policy, always
from transforms.commit import Output
from transforms.label_rows import Guard, LabelStep
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.shards import Shard

BATCH = 16


class AlarmAt:
    """An alarm before one shard, as transforms.watch.Watcher finds it."""

    def __init__(self, shards: set[str]) -> None:
        self.shards = shards
        self.watch = SimpleNamespace(on_alarm="full")

    def alarm_at(self, shard: str) -> bool:
        return shard in self.shards


@pytest.fixture
def step(counting: Counting, policy: Policy) -> Iterator[LabelStep]:
    with ThreadPoolExecutor(1) as pool:
        full = Router(always(counting.graph, "big"), counting, BATCH, 1, pool)
        guard: Any = Guard(AlarmAt({"second"}), full)  # type: ignore[arg-type]
        router = Router(policy, counting, BATCH, 1, pool)
        yield LabelStep(router, Output("unused", "RUN"), {}, guard)


def taken(step: LabelStep, shard: str, images: list[Prepared]) -> dict[str, list[tuple[str, ...]]]:
    """Shard -> trails of what came out while these images of a shard were taken in."""
    assert step.begin(Shard(shard, f"{shard}.tar", 1, "x"))
    out: dict[str, list[tuple[str, ...]]] = {}
    for item in images:
        kept = stripped(item, step.router)
        pixels = {**kept.pixels, **{name: item.pixels[name] for name in step.later}}
        own = replace(kept, shard=shard, key=f"{shard}/{item.row}", pixels=pixels)
        for items, labels in step.take(own):
            for done in items:
                out.setdefault(done.shard, []).append(labels.trail)  # type: ignore[attr-defined]
    return out


def test_what_waits_in_the_policys_router_comes_out_when_the_full_network_takes_over(
    step: LabelStep, images: list[Prepared]
) -> None:
    before = taken(step, "first", images[:100])
    after = taken(step, "second", images[:100])
    assert len(before["first"]) < 100  # some wait for full batches
    assert len(before["first"]) + len(after["first"]) == 100
    assert set(after["second"]) == {("big",)}
    assert len(after["second"]) == 100 - 100 % BATCH
    left = [len(items) for items, _ in step.flush()]
    assert sum(left) == 100 % BATCH


def test_back_from_the_full_network_nothing_stays_in_it(
    step: LabelStep, images: list[Prepared]
) -> None:
    """A shard that was begun before the alarm, and is done again."""
    taken(step, "second", images[:20])
    assert len(taken(step, "third", images[:1])["second"]) == 20 - BATCH
