"""JPEGs by the fast decoder, beside Pillow: the slow and obvious way."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Image as Opened

from transforms import images
from transforms.colours import rgb, upright
from transforms.decode_limits import BadImage
from transforms.images import InputSpec, decode
from transforms.jpeg import decode_fast, eighths_for
from transforms.resize import fit


def picture(width: int, height: int) -> Opened:
    """Smooth colours and some noise, so that scaled images are alike."""
    rng = np.random.default_rng(width)
    waves = np.sin(
        np.arange(height)[:, None, None] / 37 + np.arange(width)[:, None] / 29 + [0, 2, 4]
    )
    return Image.fromarray((128 + 100 * waves + rng.normal(size=waves.shape)).astype(np.uint8))


def jpeg(image: Opened, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("kind", "JPEG"), **options)
    return buffer.getvalue()


def by_pillow(content: bytes, eighths: int = 8) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        if eighths < 8:
            image.draft(None, tuple(side * eighths // 8 for side in image.size))
        return upright(image, rgb(image))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "optimised, coarse": {"optimize": True, "quality": 20},
    "restarts": {"restart_marker_rows": 1},
    "stored as RGB": {"keep_rgb": True},
    "an MPO": {"kind": "MPO", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
    **{f"turned {orientation}": {"exif": turned(orientation)} for orientation in range(2, 9)},
}


def never(*_: object) -> None:
    pytest.fail("Pillow decoded")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(97, 61), (64, 48), (7, 30), (1, 1)], ids=str)
def test_every_pixel_is_pillows_at_every_scale(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], kind: str, mode: str
) -> None:
    content = jpeg(picture(*size).convert(mode), **KINDS[kind])
    monkeypatch.setattr(images, "rgb", never)
    for eighths in (1, 2, 4, 8):
        side = -(-min(size) * eighths // 8)
        chosen = eighths_for(size, side)
        assert chosen == (eighths if min(size) >= 8 else 8)
        found, wanted = decode(content, side=side), by_pillow(content, chosen)
        assert found.flags.c_contiguous
        assert np.array_equal(found, wanted), eighths
    assert np.array_equal(decode(content), by_pillow(content))


@pytest.mark.parametrize(
    ("size", "side", "eighths"),
    [
        ((500, 375), None, 8),
        ((500, 375), 376, 8),
        ((500, 375), 189, 8),
        ((500, 375), 188, 4),
        ((375, 500), 188, 4),
        ((500, 375), 95, 4),
        ((500, 375), 94, 2),
        ((500, 375), 47, 1),
        ((500, 375), 1, 1),
        ((7, 500), 1, 8),
        ((8, 500), 1, 1),
    ],
)
def test_the_scale_is_the_smallest_that_keeps_the_shorter_side(
    size: tuple[int, int], side: int | None, eighths: int
) -> None:
    assert eighths_for(size, side) == eighths


def test_nothing_is_enlarged_and_a_smaller_image_is_alike() -> None:
    spec = InputSpec(resize=(32, 40), mean=(0.5,) * 3, std=(0.5,) * 3)
    content = jpeg(picture(200, 170), exif=turned(6))
    small = decode(content, side=max(spec.resize))
    assert small.shape == (50, 43, 3)
    assert min(small.shape[:2]) >= max(spec.resize)
    differences = np.abs(fit(small, spec).astype(int) - fit(decode(content), spec))
    assert differences.mean() < 2


@pytest.mark.parametrize(
    "content",
    [
        jpeg(Image.new("CMYK", (16, 16), (9, 80, 200, 30))),
        jpeg(picture(40, 40))[:-60] + b"\xff\xd9",  # ends early: libjpeg only warns
        jpeg(picture(40, 40), kind="PNG"),
    ],
    ids=["CMYK", "ends early", "PNG"],
)
def test_what_is_odd_is_decoded_by_pillow(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        assert decode_fast(content, image, None) is None
    assert np.array_equal(decode(content, side=4), by_pillow(content))


def test_damage_is_judged_as_pillow_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    whole = jpeg(picture(60, 44), progressive=True, exif=turned(6)), jpeg(picture(60, 44))
    accepted = 0
    for number in range(400):
        broken = bytearray(whole[number % 2])
        for at in rng.integers(len(broken), size=1 + number % 3):
            broken[at] = rng.integers(256)
        if number % 5 == 0:
            del broken[rng.integers(len(broken)) :]
        found = outcome(bytes(broken))
        with monkeypatch.context() as patch:
            patch.setattr(images, "decode_fast", lambda *_: None)
            assert found == outcome(bytes(broken))
        accepted += found[0] == "ok"
    assert 50 < accepted < 350


def outcome(content: bytes) -> tuple[str, bytes]:
    try:
        return "ok", decode(content).tobytes()
    except BadImage as error:
        return error.status, str(error).encode()
