"""What is kept of decoded images, and how many bytes are under way, is bounded."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from transforms import decode_ahead
from transforms.decode_ahead import DecodeAhead
from transforms.decoding import Decoded, HereDecoder
from transforms.images import InputSpec, decode
from transforms.prepare import MOST_KEPT_BYTES, prepare
from transforms.resize import fit
from transforms.shards import Record

HALF = (0.5, 0.5, 0.5)
FIRST = {"first": InputSpec(resize=8, crop=8, mean=HALF, std=HALF)}
LATER = {"later": InputSpec(resize=(16, 16), mean=HALF, std=HALF)}


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
