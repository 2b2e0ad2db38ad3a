"""Every malformed image of the collection ends decoded or as BadImage, in a limited process."""

import csv
from collections.abc import Iterator

import numpy as np
import pytest
from real_data import HOSTILE, needs

from transforms.decode_limits import DEFAULT_LIMITS, BadImage
from transforms.decoding import Decoder, HereDecoder
from transforms.images import InputSpec
from transforms.isolate import IsolatedDecoder

SPECS = {"input": InputSpec(resize=40, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3)}
LOST = {"crashed", "timeout", "memory"}
REJECTED = {"empty", "decode", "too_large"}

pytestmark = needs("hostile files", HOSTILE)


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedDecoder]:
    made = IsolatedDecoder(DEFAULT_LIMITS)
    yield made
    made.close()


def outcome(decoder: Decoder, content: bytes) -> tuple[str, bytes]:
    """The status, and the pixels or the reason."""
    try:
        decoded = decoder(content, SPECS, keep_image=True)
    except BadImage as error:
        return error.status, str(error).encode()
    return "ok", np.asarray(decoded.image).tobytes() + decoded.pixels["input"].tobytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as transforms.images does where no test runs
@pytest.mark.parametrize(
    "folder",
    ["afl-gif-bmp", "afl-jpeg", "image-rs", "jpeg-decoder-crash", "pillow", "png", "png-fuzz"],
)
def test_no_file_is_lost_and_isolation_and_a_second_run_change_nothing(
    folder: str, isolated: IsolatedDecoder
) -> None:
    files = [path for path in sorted((HOSTILE / folder).rglob("*")) if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        found = outcome(isolated, content)
        assert found[0] in {"ok", *REJECTED}, (path, found)
        assert outcome(HereDecoder(), content) == found, path
        assert outcome(isolated, content) == found, path


def test_generated_images_end_as_expected(isolated: IsolatedDecoder) -> None:
    with (HOSTILE / "generated" / "EXPECT.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("img/")]
    assert rows
    for row in rows:
        status, _ = outcome(isolated, (HOSTILE / "generated" / row["file"]).read_bytes())
        expected = row["expected"]
        if expected.startswith("accept-or-reject"):
            assert status not in LOST, row
        elif expected.startswith("accept"):
            assert status == "ok", row
        elif expected == "reject-by-limit":
            assert status == "too_large", row
        else:
            assert expected == "reject", row
            assert status in REJECTED, row
