"""A router holds few images at a time, which go the same way as if it held all."""

import gc
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny_routing import Counting, encoded, near_a_cut, rows_of, stripped

from policy.answers import Answers
from policy.rules import Policy
from transforms import queues
from transforms.collect import Blocks
from transforms.decoding import Decoded, HereDecoder
from transforms.images import InputSpec
from transforms.label_table import Labels
from transforms.prepare import Prepared
from transforms.queues import MOST_WAITING
from transforms.route import Router
from transforms.routed import Routed
from transforms.shard_loop import Placed, ShardLoop
from transforms.shards import Shard

Row = tuple[int, tuple[str, ...], float, int]


def routed(policy: Policy, engine: Counting, images: list[Prepared]) -> tuple[list[Row], int]:
    """Row, trail, cost and label of every image, and how many waited in queues at most."""
    most, found = 0, []
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, engine, 16, 2, pool)
        for item in images:
            found += router.feed(stripped(item, router))
            most = max(most, sum(queue.waiting for queue in router._queues.at.values()))
        found += router.flush()
    return sorted(rows_of(found)), most


@pytest.mark.parametrize("most", [1, MOST_WAITING])
def test_a_router_that_may_hold_little_sends_every_image_the_same_way(
    policy: Policy,
    counting: Counting,
    images: list[Prepared],
    outputs: dict[str, Answers],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr(queues, "MOST_WAITING", 10**9)
    wanted, _ = routed(policy, counting, images)
    monkeypatch.setattr(queues, "MOST_WAITING", most)
    found, seen = routed(policy, counting, images)
    near = near_a_cut(policy, outputs)
    assert [row for row, *_ in found] == [row for row, *_ in wanted] == [i.row for i in images]
    for one, other in zip(found, wanted, strict=True):
        assert one == other or near[one[0]]
    assert seen <= 16 if most == 1 else 16 < seen <= len(policy.trails) * 15


def test_large_images_go_the_same_way_as_if_they_were_kept(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    found = []
    for made_at_once in (False, True):
        with ThreadPoolExecutor(1) as pool:
            router = Router(policy, counting, 16, 2, pool)
            assert len(router.later) == 1
            groups = []
            for item in images:
                given = stripped(item, router)
                if made_at_once:
                    pixels = {name: item.pixels[name] for name in (*router.inputs, *router.later)}
                    given = replace(given, image=None, pixels=pixels)
                groups += router.feed(given)
            found.append(list(rows_of([*groups, *router.flush()])))
    assert found[0] == found[1]


class Living(HereDecoder):
    """Counts the decoded images that are alive."""

    alive = most = 0

    def __call__(
        self, encoded: bytes, inputs: Mapping[str, InputSpec], *, keep_image: bool
    ) -> Decoded:
        decoded = super().__call__(encoded, inputs, keep_image=keep_image)
        Living.alive += 1
        Living.most = max(Living.most, Living.alive)
        weakref.finalize(decoded.image, self._dead)
        return decoded

    @staticmethod
    def _dead() -> None:
        Living.alive -= 1


@dataclass
class Routing:
    """A step that is nothing but the router."""

    router: Router
    written: int = 0

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return self.router.inputs

    @property
    def later(self) -> Mapping[str, InputSpec]:
        return self.router.later

    def take(self, item: Prepared) -> Iterator[Placed]:
        return self._placed(self.router.feed(item))

    def flush(self) -> Iterator[Placed]:
        return self._placed(self.router.flush())

    def _placed(self, groups: Iterable[Routed]) -> Iterator[Placed]:
        return ((group.items, Labels([item.key for item in group.items])) for group in groups)

    def reject(self, item: Prepared) -> Labels:
        raise AssertionError(item.error)

    def done(self, shard: Shard) -> None:
        del shard

    def begin(self, _: Shard) -> bool:
        return True

    def write(self, shard: Shard, blocks: Blocks[Labels], started: float) -> dict[str, int]:
        del shard, started
        self.written += len(blocks.rows)
        return {}


@pytest.mark.parametrize("turns", [False, True])
def test_no_more_decoded_images_are_alive_than_may_wait(
    policy: Policy, counting: Counting, tmp_path: Path, *, turns: bool
) -> None:
    rng, size = np.random.default_rng(0), 8
    gc.collect()
    Living.alive = Living.most = 0
    with ThreadPoolExecutor(2) as pool:
        step = Routing(Router(policy, counting, size, 2, pool))
        loop = ShardLoop(step, pool, 2 * size, Living(), turns=turns)
        for name in "abc":
            members = [(f"{row}.png", encoded(rng)) for row in range(200)]
            list(loop.process(tiny.shard(name, tiny.write_tar(tmp_path / f"{name}.tar", members))))
        list(loop.finish())
    assert step.written == 600
    ahead, first, queued, sent_on = 2 * size + 4, size, 3 * (size - 1), size
    assert size < Living.most <= ahead + first + queued + sent_on
    del loop, step
    gc.collect()
    assert Living.alive == 0
