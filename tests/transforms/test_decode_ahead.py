import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
import tiny

from transforms.decode_ahead import DecodeAhead
from transforms.decoding import Decoded, HereDecoder
from transforms.doing import DECODE, IDLE, RESIZE, Budget, use
from transforms.images import InputSpec
from transforms.shards import Record

SPECS = {"input.8x8": InputSpec(resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)}


class Now(Executor):
    """Does what is submitted at once, and remembers how much that was."""

    submitted = 0

    def submit(self, fn: object, /, *args: object, **kwargs: object) -> Future[object]:
        self.submitted += 1
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def records(n: int) -> list[Record]:
    return [Record(str(number), b"") for number in range(n)]


def test_records_come_back_in_order_at_most_depth_ahead() -> None:
    pool = Now()
    ahead = DecodeAhead({}, pool, depth=3)
    rows = []
    for row in range(10):
        rows += [item.row for item in ahead.submit("s", row, [Record(str(row), b"")])]
        assert pool.submitted - len(rows) == min(row + 1, 3)
    assert rows == list(range(7))
    assert [item.row for item in ahead.drain()] == [7, 8, 9]
    assert list(ahead.drain()) == []


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 5, 64, 100])
def test_every_record_comes_back_once_in_order(depth: int, turns: bool) -> None:  # noqa: FBT001
    with ThreadPoolExecutor(3) as pool:
        ahead = DecodeAhead({}, pool, depth, turns=turns)
        items = list(ahead.submit("a", 0, records(150)))
        items += ahead.submit("b", 7, records(20))
        items += ahead.drain()
    found = [(item.shard, item.row, item.key) for item in items]
    assert found == [("a", n, str(n)) for n in range(150)] + [
        ("b", 7 + n, str(n)) for n in range(20)
    ]


def test_in_turns_nothing_is_decoded_while_the_network_has_its_turn() -> None:
    pool = Now()
    ahead = DecodeAhead({}, pool, depth=32, turns=True)
    assert list(ahead.submit("s", 0, records(31))) == []
    assert pool.submitted == 0
    taken = ahead.submit("s", 31, records(40))
    next(taken)
    before = pool.submitted
    assert [item.row for item in taken] == list(range(1, 64))
    assert pool.submitted == 2 * before
    assert [item.row for item in ahead.drain()] == list(range(64, 71))


class Slow(HereDecoder):
    """Does not decode a record before it is allowed to."""

    released = threading.Event()

    def __call__(self, encoded: bytes, *_: object, **__: object) -> Decoded:
        if encoded == b"slow":
            self.released.wait(10)
        return Decoded()


def test_order_holds_when_a_later_image_is_decoded_first() -> None:
    decoder = Slow()
    with ThreadPoolExecutor(2) as pool:
        ahead = DecodeAhead({}, pool, depth=5, decoder=decoder)
        assert list(ahead.submit("s", 0, [Record("slow", b"slow"), Record("fast", b"fast")])) == []
        ahead._tasks[1].future.result(10)
        decoder.released.set()
        assert [item.key for item in ahead.drain()] == ["slow", "fast"]


def test_what_a_decoder_raises_beyond_bad_images_is_raised_to_whom_waits() -> None:
    class Broken(HereDecoder):
        def __call__(self, *_: object, **__: object) -> Decoded:
            raise RuntimeError("no decoder")

    with ThreadPoolExecutor(2) as pool:
        ahead = DecodeAhead({}, pool, depth=0, decoder=Broken())
        with pytest.raises(RuntimeError, match="no decoder"):
            list(ahead.submit("s", 0, [Record("k", b"x")]))


def test_waiting_counts_as_decoding_and_resizing_in_the_proportion_of_the_work() -> None:
    encoded = tiny.image_bytes(np.random.default_rng(0))
    use(budget := Budget())
    with ThreadPoolExecutor(2) as pool:
        ahead = DecodeAhead(SPECS, pool, depth=64, turns=True)
        items = list(ahead.submit("s", 0, [Record(str(n), encoded) for n in range(640)]))
    assert len(items) == 640
    seconds = budget.take()
    assert seconds.keys() == {IDLE, DECODE, RESIZE}
    assert min(seconds.values()) > 0
