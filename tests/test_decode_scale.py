"""What decoding JPEGs smaller does to the accuracy of real networks on real photographs.

Needs ADALABEL_DATA (default ../shared/data); skipped with a reason where it is absent.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from transforms.images import InputSpec, decode
from transforms.jpeg import eighths_for
from transforms.networks import load_network
from transforms.networks_file import NetworksFile, NetworkSpec
from transforms.resize import fit
from transforms.shards import Record, match_shards, read_records

DATA = Path(os.environ.get("ADALABEL_DATA", "../shared/data")).absolute()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "photos").is_dir(), reason=f"no photographs in ADALABEL_DATA ({DATA})"
    ),
]
NETWORKS = {
    "mobilenet_v1_0.25_128": ("mobilenet_v1:mobilenet_v1", {"alpha": 0.25}, 128),
    "mobilenet_v1_0.5_160": ("mobilenet_v1:mobilenet_v1", {"alpha": 0.5}, 160),
}


@pytest.fixture(scope="module")
def photographs() -> list[Record]:
    """500, of 299 x 299 pixels."""
    shards = match_shards([str(DATA / "photos" / "nips17-*.tar")])
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


@pytest.mark.parametrize("name", NETWORKS)
def test_half_the_size_costs_two_points_of_accuracy_at_most(
    photographs: list[Record], name: str
) -> None:
    factory, kwargs, side = NETWORKS[name]
    wanted = InputSpec(resize=(side, side), mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = str(DATA / "networks" / f"{name}.safetensors")
    spec = NetworkSpec(name, factory, weights, wanted, kwargs=kwargs)
    networks = NetworksFile("imagenet1k", (spec,), (str(DATA / "networks"),))
    model = load_network(spec, networks, ("all",)).module

    large = int(2.3 * side)  # at 2 * side the half is the input itself: sharper, and more are right
    assert eighths_for((large, large), wanted.shorter_side) == 4
    encoded = [enlarged(record.image, large) for record in photographs]
    full = right(model, wanted, photographs, [decode(image) for image in encoded])
    small = [decode(image, side=wanted.shorter_side) for image in encoded]
    assert small[0].shape == ((large + 1) // 2, (large + 1) // 2, 3)
    scaled = right(model, wanted, photographs, small)

    lost, won = int((full & ~scaled).sum()), int((scaled & ~full).sum())
    assert abs(scaled.mean() - full.mean()) <= 0.02
    # McNemar: without an effect, the difference of the two has the root as its standard deviation
    assert abs(lost - won) < 3 * np.sqrt(max(lost + won, 1))
