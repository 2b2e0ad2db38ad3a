import io

import numpy as np
import pytest
import tiny
from PIL import Image

from transforms.images import InputSpec, decode
from transforms.prepare import Prepared, prepare
from transforms.resize import fit
from transforms.shards import Record

SPECS = {
    "input.8x8": InputSpec(resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3),
    "input.6x6": InputSpec(resize=7, crop=6, mean=(0.5,) * 3, std=(0.5,) * 3),
}


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
