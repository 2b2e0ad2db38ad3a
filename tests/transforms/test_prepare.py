import io
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from transforms.images import InputSpec, decode
from transforms.prepare import DecodeAhead, Prepared, prepare
from transforms.resize import fit
from transforms.shards import Record

SPECS = {
    "input.8x8": InputSpec(resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3),
    "input.6x6": InputSpec(resize=7, crop=6, mean=(0.5,) * 3, std=(0.5,) * 3),
}


class Now(Executor):
    """Does what is submitted at once, and remembers how much that was."""

    submitted = 0

    def submit(self, fn: object, /, *args: object, **kwargs: object) -> Future[object]:
        self.submitted += 1
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_a_record_gets_the_pixels_of_every_input_from_one_decoding() -> None:
    encoded = tiny.image_bytes(np.random.default_rng(0))
    item = prepare("s", 3, Record("s/k", encoded, 2, "odd"), SPECS)
    assert (item.shard, item.row, item.key, item.label) == ("s", 3, "s/k", 2)
    assert (item.label_error, item.status, item.error) == ("odd", "ok", None)
    for name, spec in SPECS.items():
        assert np.array_equal(item.pixels[name], fit(decode(encoded), spec))


def test_a_rejected_record_is_passed_on_undecoded() -> None:
    record = Record("k", tiny.image_bytes(np.random.default_rng(0))).rejected("duplicate", "twice")
    assert prepare("s", 0, record, SPECS) == Prepared(
        "s", 0, "k", None, status="duplicate", error="twice"
    )


@pytest.mark.parametrize(("content", "status"), [(b"", "empty"), (b"not an image", "decode")])
def test_an_image_that_cannot_be_decoded_is_a_status(content: bytes, status: str) -> None:
    item = prepare("s", 0, Record("k", content, 1), SPECS)
    assert (item.status, item.label, item.image) == (status, 1, None)
    assert item.error


@pytest.mark.parametrize("size", [(10_000_000, 1), (1, 10_000_000)], ids=["wide", "tall"])
def test_an_extremely_long_image_is_fitted_or_rejected_and_stops_nothing(
    size: tuple[int, int],
) -> None:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    spec = InputSpec(resize=256, crop=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    item = prepare("s", 0, Record("k", buffer.getvalue()), {"i": spec})
    assert item.status == "too_large" or item.pixels["i"].shape == (224, 224, 3)


def test_records_come_back_in_order_at_most_depth_ahead() -> None:
    pool = Now()
    ahead = DecodeAhead({}, pool, depth=3)
    rows = []
    for row in range(10):
        rows += [item.row for item in ahead.submit("s", row, Record(str(row), b""))]
        assert pool.submitted - len(rows) == min(row + 1, 3)
    assert rows == list(range(7))
    assert [item.row for item in ahead.drain()] == [7, 8, 9]
    assert list(ahead.drain()) == []


def test_order_holds_when_a_later_image_is_decoded_first() -> None:
    slow, released = Record("slow", b""), threading.Event()

    def late(*args: Any, **options: Any) -> object:
        if args[2] is slow:
            released.wait(10)
        return prepare(*args, **options)

    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.prepare.prepare", late)
        ahead = DecodeAhead({}, pool, depth=5)
        assert list(ahead.submit("s", 0, slow)) == []
        assert list(ahead.submit("s", 1, Record("fast", b""))) == []
        ahead._pending[1][1].result(10)
        released.set()
        assert [item.key for item in ahead.drain()] == ["slow", "fast"]
