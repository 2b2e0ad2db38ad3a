"""What decoding JPEGs smaller does to the accuracy of real networks on real photographs.

Needs ADALABEL_DATA (default ../shared/data); skipped with a reason where it is absent.
"""

import io
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from real_data import NETWORKS, PHOTOS, needs

from transforms.images import InputSpec, decode
from transforms.networks import decode_side, load_network
from transforms.networks_file import NetworksFile, NetworkSpec
from transforms.resize import fit
from transforms.shards import Record, match_shards, read_records

pytestmark = [pytest.mark.slow, needs("photographs", PHOTOS)]
FACTORIES = {
    "mobilenet_v1_0.25_128": ("mobilenet_v1:mobilenet_v1", {"alpha": 0.25}, 128),
    "mobilenet_v1_0.5_160": ("mobilenet_v1:mobilenet_v1", {"alpha": 0.5}, 160),
}


@pytest.fixture(scope="module")
def photographs() -> list[Record]:
    """500, of 299 x 299 pixels."""
    shards = match_shards([str(PHOTOS / "nips17-*.tar")])
    return [record for shard in shards for record in read_records(shard)]


def enlarged(encoded: bytes, side: int) -> bytes:
    """The same photograph as a camera's JPEG of another size: 4:2:0."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        large = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    large.save(buffer, "JPEG", quality=90, subsampling=2)
    return buffer.getvalue()


def right(
    model: torch.nn.Module, spec: InputSpec, records: list[Record], images: list[NDArray[np.uint8]]
) -> NDArray[np.bool_]:
    """Which images [n] are labelled right."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 50):
            pixels = np.stack([fit(image, spec) for image in images[start : start + 50]])
            batch = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
            found.append(model(batch).argmax(dim=1).numpy())
    return np.asarray(np.concatenate(found) == [record.label for record in records])


def networks_of(name: str, side: int | Literal["full"]) -> NetworksFile:
    factory, kwargs, width = FACTORIES[name]
    wanted = InputSpec(resize=(width, width), mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = str(NETWORKS / f"{name}.safetensors")
    spec = NetworkSpec(name, factory, weights, wanted, kwargs=kwargs)
    return NetworksFile("imagenet1k", (spec,), (str(NETWORKS),), side)


def lost_and_won(photographs: list[Record], name: str, large: int, side: int) -> np.ndarray:
    """Images labelled right only at full size, and only at half, of squares of `large` pixels."""
    networks = networks_of(name, side)
    (spec,) = networks.network
    loaded = load_network(spec, networks, ("all",))
    model, wanted = loaded.module, loaded.input

    encoded = [enlarged(record.image, large) for record in photographs]
    full = right(model, wanted, photographs, [decode(image) for image in encoded])
    small = [decode(image, side=decode_side(networks)) for image in encoded]
    assert small[0].shape == ((large + 1) // 2, (large + 1) // 2, 3)
    scaled = right(model, wanted, photographs, small)
    return np.array([(full & ~scaled).sum(), (scaled & ~full).sum()])


# McNemar: without an effect, the difference of the two has the root of their sum as its standard
# deviation


@pytest.mark.parametrize("name", FACTORIES)
def test_half_the_size_costs_two_points_of_accuracy_at_most_where_it_is_asked_for(
    photographs: list[Record], name: str
) -> None:
    side = FACTORIES[name][2]
    large = int(2.3 * side)  # at 2 * side the half is the input itself: sharper, and more are right
    lost, won = lost_and_won(photographs, name, large, side)
    assert abs(lost - won) <= 0.02 * len(photographs)
    assert abs(lost - won) < 3 * np.sqrt(max(lost + won, 1))


def test_accuracy_is_lost_where_half_the_size_is_asked_for(photographs: list[Record]) -> None:
    """Why full size is what runs where nothing is asked for."""
    side = FACTORIES["mobilenet_v1_0.5_160"][2]
    lost, won = lost_and_won(photographs, "mobilenet_v1_0.5_160", 3 * side, side)
    assert lost - won > 2 * np.sqrt(lost + won)


def test_nothing_is_lost_where_nothing_is_asked_for(photographs: list[Record]) -> None:
    for record in photographs[:20]:
        encoded = enlarged(record.image, 1000)
        asked = networks_of("mobilenet_v1_0.25_128", 128)
        pixels = decode(encoded, side=decode_side(NetworksFile(asked.classes, asked.network)))
        assert np.array_equal(pixels, decode(encoded))
        assert pixels.shape == (1000, 1000, 3)
