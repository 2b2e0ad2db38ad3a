"""What a worker holds at a time is bounded, whatever the policy and the images (docs/speed.md)."""

import gc
import io
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_routing import Counting, encoded, rows_of, stripped

from policy.rules import Policy
from transforms import decode_ahead, queues
from transforms.collect import Blocks
from transforms.decode_ahead import DecodeAhead
from transforms.decoding import Decoded, HereDecoder
from transforms.images import InputSpec, decode
from transforms.label_table import Labels
from transforms.prepare import MOST_KEPT_BYTES, Prepared, prepare
from transforms.queues import MOST_WAITING, PATIENCE, Batch, Queues
from transforms.resize import fit
from transforms.route import Router
from transforms.routed import Routed
from transforms.shard_loop import Placed, ShardLoop
from transforms.shards import Record, Shard

HALF = (0.5, 0.5, 0.5)
FIRST = {"first": InputSpec(resize=8, crop=8, mean=HALF, std=HALF)}
LATER = {"later": InputSpec(resize=(16, 16), mean=HALF, std=HALF)}


def batch(n: int) -> Batch:
    return Batch([Prepared("s", row, f"s/{row}", None) for row in range(n)])


def waiting(held: Queues[int]) -> int:
    return sum(queue.waiting for queue in held.at.values())


def run_ready(held: Queues[int]) -> int:
    """Take whatever is ready; how many images that were."""
    taken = 0
    while ready := held.ready():
        taken += sum(len(part.items) for part in held.take(ready[0]))
    return taken


def test_however_many_places_there_are_so_many_batches_wait() -> None:
    rng = np.random.default_rng(0)
    held: Queues[int] = Queues(8)
    fed = taken = most = 0
    for _ in range(2000):
        held.fed()
        for place in rng.integers(0, 1000, size=8).tolist():
            held.put(place, batch(1))
        fed += 8
        most = max(most, waiting(held))
        taken += run_ready(held)
        assert waiting(held) <= MOST_WAITING * 8
    assert most > MOST_WAITING * 8  # so that there was something to hold back
    assert taken + waiting(held) == fed


def test_nothing_waits_for_longer_than_the_patience() -> None:
    held: Queues[int] = Queues(8)
    came: dict[int, int] = {}
    for now in range(5 * PATIENCE):
        held.fed()
        if now % 50 == 0:
            held.put(0, batch(1))
            came.setdefault(0, now)
        if run_ready(held):
            assert now - came.pop(0) == PATIENCE
    assert waiting(held) < 8


def test_a_full_batch_is_run_before_the_rest_is_looked_at() -> None:
    held: Queues[int] = Queues(2)
    for place in range(3 * MOST_WAITING):
        held.put(place, batch(1))
    held.put(3, batch(1))
    assert held.ready() == [3]


@pytest.mark.parametrize("most", [1, MOST_WAITING])
def test_a_router_that_may_hold_little_sends_every_image_the_same_way(
    policy: Policy,
    counting: Counting,
    images: list[Prepared],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr(queues, "MOST_WAITING", most)
    seen, found = 0, []
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 16, 2, pool)
        for item in images:
            found += router.feed(stripped(item, router))
            seen = max(seen, sum(queue.waiting for queue in router._queues.at.values()))
        found += router.flush()
    assert sorted(row for row, *_ in rows_of(found)) == [item.row for item in images]
    assert seen <= 16 if most == 1 else 16 < seen <= len(policy.trails) * 15


def noise(side: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(grey).convert("RGB").save(buffer, kind, compress_level=1)
    return buffer.getvalue()


@pytest.mark.parametrize(("side", "kept"), [(1182, True), (1183, False)])
def test_an_image_is_kept_for_later_inputs_only_if_it_is_small(side: int, *, kept: bool) -> None:
    assert (3 * side * side <= MOST_KEPT_BYTES) == kept
    content = noise(side)
    item = prepare("s", 0, Record("s/0", content), FIRST, later=LATER)
    assert (item.image is not None) == kept
    assert item.pixels.keys() == FIRST.keys() | (set() if kept else LATER.keys())
    for stage, pixels in item.pixels.items():
        assert np.array_equal(pixels, fit(decode(content), {**FIRST, **LATER}[stage]))


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


def test_what_is_cut_off_an_image_is_not_kept() -> None:
    tall = np.zeros((1600, 8, 3), dtype=np.uint8)
    pixels = fit(tall, FIRST["first"])
    assert pixels.shape == (8, 8, 3)
    while pixels.base is not None:
        pixels = pixels.base
    assert pixels.nbytes == 8 * 8 * 3


class Counted(HereDecoder):
    """Makes nothing of an image."""

    def __call__(self, *_: object, **__: object) -> Decoded:
        return Decoded()


@pytest.mark.parametrize("turns", [False, True])
def test_large_records_are_under_way_only_up_to_their_bytes(
    monkeypatch: pytest.MonkeyPatch, *, turns: bool
) -> None:
    monkeypatch.setattr(decode_ahead, "_MOST_BYTES", 1 << 20)
    one, read, back = 300 << 10, 0, 0

    def records() -> Iterator[Record]:
        nonlocal read
        for number in range(100):
            read += 1
            yield Record(str(number), bytes(one))

    with ThreadPoolExecutor(2) as pool:
        ahead = DecodeAhead({}, pool, 64, turns=turns, decoder=Counted())
        for row, record in enumerate(records()):
            most = (1 << 20) + one
            for _ in ahead.submit("s", row, [record]):
                back += 1
            assert (read - back) * one <= most
        assert len(list(ahead.drain())) == read - back


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
