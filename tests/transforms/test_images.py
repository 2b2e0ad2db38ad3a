import io
import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
import PIL
import pytest
import simplejpeg
import torch
from PIL import Image, ImageFile

from policy.errors import InputError
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.images import DECODER, InputSpec, decode

GREY = (0.5, 0.5, 0.5)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def first_pixel(content: bytes) -> tuple[int, ...]:
    return tuple(decode(content)[0, 0].tolist())


def noise(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_every_format_becomes_rgb_of_the_same_size(kind: str) -> None:
    pixels = decode(encoded(noise(0, 20, 10), kind))
    assert (pixels.shape, pixels.dtype) == ((10, 20, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    original = noise(0, 20, 10)
    assert np.array_equal(decode(encoded(original, kind)), original)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PCX"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(BadImage, match=r"not an image of a known format \(JPEG, PNG") as caught:
        decode(encoded(noise(0, 16, 16), kind))
    assert caught.value.status == "decode"


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (100, 100, 100)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("I;16", 0xFFFF, (255, 255, 255)),
        ("I;16", 100 * 257, (100, 100, 100)),
        ("I;16", 255, (0, 0, 0)),
        ("I;16", 256, (1, 1, 1)),
        ("I;16", 0x80FF, (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, colour: int | tuple[int, ...], rgb: tuple[int]) -> None:
    assert first_pixel(encoded(Image.new(mode, (3, 2), colour))) == rgb


def test_cmyk_becomes_rgb() -> None:
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert first_pixel(content) == (255, 0, 0)


@pytest.mark.parametrize(("value", "grey"), [(-5, 0), (0, 0), (65535, 255), (1 << 20, 255)])
def test_32_bit_grey_is_clipped_to_16_bits_then_scaled(value: int, grey: int) -> None:
    content = encoded(Image.new("I", (2, 2), value), "TIFF")
    assert first_pixel(content) == (grey, grey, grey)


@pytest.mark.parametrize("transparency", [None, 0, b"\0\x80"])
def test_a_palette_becomes_its_colours_and_transparency_is_dropped(
    transparency: int | bytes | None,
) -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    options = {} if transparency is None else {"transparency": transparency}
    assert first_pixel(encoded(image, **options)) == (10, 20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[0, 0] = 255
    upright[0, 5] = 128
    # what a camera held this way stores (EXIF 2.3, tag 0x0112)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(decode(content), upright)


@pytest.mark.parametrize("garbage", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\0"])
def test_malformed_exif_turns_nothing_and_rejects_nothing(garbage: bytes) -> None:
    original = noise(0, 20, 10)
    assert np.array_equal(decode(encoded(original, exif=garbage)), original)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    original = noise(0, 20, 10)
    assert np.array_equal(decode(encoded(original, exif=exif)), original)


def test_a_tiff_is_turned_once() -> None:
    upright = np.asarray(noise(0, 20, 10))
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    assert np.array_equal(decode(encoded(stored, "TIFF", tiffinfo={0x0112: 6})), upright)


def test_floats_from_0_to_1_become_0_to_255() -> None:
    values = np.array([[-1.0, 0.0, 0.25, 1.0, 300.0, np.nan, np.inf]], dtype=np.float32)
    grey = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 1]
    assert grey.tolist() == [0, 0, 64, 255, 255, 0, 255]


def test_16_bit_colour_becomes_its_high_byte_as_16_bit_grey_does() -> None:
    samples = struct.pack(">6H", 0, 0x00FF, 0x0100, 0x80FF, 0xFFFF, 0x1234)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(b"\0" + samples)),
            (b"IEND", b""),
        )
    )
    assert np.asarray(decode(content)).ravel().tolist() == [0, 0, 1, 0x80, 0xFF, 0x12]


def test_a_transparent_colour_of_grey_or_rgb_stays_what_it_is() -> None:
    for mode, colour in (("L", 7), ("RGB", (1, 2, 3))):
        content = encoded(Image.new(mode, (2, 2), colour), transparency=colour)
        rgb = (7, 7, 7) if mode == "L" else colour
        assert first_pixel(content) == rgb


def test_an_inverted_cmyk_jpeg_keeps_its_colours() -> None:
    # Pillow writes CMYK as Adobe does: inverted, and marked so
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode(content)[8, 8]
    assert red > 250
    assert max(green, blue) < 5


def test_no_pixel_is_decoded_of_what_its_header_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_image: Image.Image) -> None:
        pytest.fail("a pixel was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    content = encoded(Image.new("L", (300, 1)), "TIFF")
    for limits, message in (
        (DecodeLimits(), r"300 x 1 pixels; sides may differ 200-fold \(--max-image-ratio\)"),
        (DecodeLimits(max_pixels=299, max_ratio=300), r"at most 299 \(--max-pixels\)"),
        (DecodeLimits(max_image_bytes=10), r"bytes; at most 10 \(--max-image-bytes\)"),
    ):
        with pytest.raises(BadImage, match=message) as caught:
            decode(content, limits)
        assert caught.value.status == "too_large"


def test_an_image_that_needs_too_much_memory_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_image: Image.Image) -> None:
        raise MemoryError

    content = encoded(noise(0, 4, 4), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(BadImage, match="not enough memory to decode") as caught:
        decode(content)
    assert caught.value.status == "memory"


def test_what_an_error_quotes_of_an_image_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_image: Image.Image) -> None:
        raise ValueError("\x1b[2J")

    content = encoded(noise(0, 4, 4), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(BadImage, match=r"ValueError: \\x1b\[2J"):
        decode(content)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_the_first_frame_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("RGB", (16, 16), (50 * k, 0, 0)) for k in range(4)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[1], kind, save_all=True, append_images=frames, **options)
    with Image.open(io.BytesIO(content)) as image:
        monkeypatch.setattr(type(image), "seek", lambda *_: pytest.fail("looked further"))
    assert first_pixel(content) == (50, 0, 0)


def test_a_png_whose_text_inflates_without_end_is_refused() -> None:
    content = encoded(noise(0, 4, 4))
    body = b"zTXtk\0\0" + zlib.compress(bytes(4 << 20))
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    with pytest.raises(BadImage, match="Decompressed data too large"):
        decode(content[:33] + chunk + content[33:])


def test_the_decoder_names_the_versions_that_decide_the_pixels() -> None:
    assert PIL.__version__ in DECODER
    assert "libjpeg_turbo" in DECODER
    assert f"simplejpeg {simplejpeg.__version__}" in DECODER
    assert f"torch {torch.__version__.partition('+')[0]}" in DECODER
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert first_pixel(content) == (255, 0, 0)


def test_no_bytes_are_an_empty_image() -> None:
    with pytest.raises(BadImage, match="the image has no bytes") as caught:
        decode(b"")
    assert caught.value.status == "empty"


def test_an_image_beyond_the_limit_is_refused_by_its_header() -> None:
    header = bytearray(encoded(Image.new("1", (10, 10))))
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(BadImage, match="20000 x 20000 pixels; at most 100000000") as caught:
        decode(bytes(header[:60]))
    assert caught.value.status == "too_large"


def test_an_image_just_within_the_limit_is_decoded() -> None:
    limits = DecodeLimits(max_pixels=200)
    assert decode(encoded(noise(0, 20, 10)), limits).shape == (10, 20, 3)
    with pytest.raises(BadImage, match="21 x 10 pixels; at most 200"):
        decode(encoded(noise(0, 21, 10)), limits)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, overwritten in places, or with its middle gone."""
    broken = bytearray(content)
    where = int(rng.integers(len(broken)))
    match rng.integers(3):
        case 0:
            del broken[where:]
        case 1:
            for at in rng.integers(0, len(broken), size=5):
                broken[at] = rng.integers(256)
        case _:
            del broken[where : where + 20]
    return bytes(broken)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_damage_raises_nothing_but_bad_image(kind: str) -> None:
    rng = np.random.default_rng(7)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    content = encoded(noise(0, 24, 20), kind, exif=exif)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it can repair
        for _ in range(300):
            try:
                assert decode(damaged(content, rng)).shape[2] == 3
            except BadImage as error:
                refused += error.status in {"decode", "empty", "too_large"}
    assert refused > 50


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]
)
def test_random_bytes_are_refused(start: bytes) -> None:
    rng = np.random.default_rng(1)
    for size in (1, 10, 100, 3000):
        with pytest.raises(BadImage, match=r"\w"):
            decode(start + rng.bytes(size))


def test_a_truncated_image_is_refused_not_filled_with_grey() -> None:
    content = encoded(noise(0, 100, 100), "JPEG")
    with pytest.raises(BadImage, match=r"OSError: .*truncated"):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("resize", "crop", "std", "message"),
    [
        (0, 1, GREY, "resize, crop and std must be positive"),
        ((5, 0), None, GREY, "must be positive"),
        (5, 0, GREY, "must be positive"),
        (5, -1, GREY, "must be positive"),
        (5, 5, (0.5, 0.0, 0.5), "must be positive"),
        (5, None, GREY, r"batches need crop = SIDE too; or give an exact size, resize = \[5, 5\]"),
        (5, 6, GREY, "crop = 6 is larger than resize = 5"),
        ((9, 5), 6, GREY, r"crop = 6 is larger than resize = \(9, 5\)"),
    ],
)
def test_inputs_of_no_or_unknown_size_are_refused(
    resize: int | tuple[int, int], crop: int | None, std: Sequence[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        InputSpec(resize=resize, crop=crop, mean=GREY, std=tuple(std))
