"""The loop everybody writes first: DataLoader workers decode, one network runs on all images.

Run by benchmarks/speed.py in a process of its own; prints one JSON object with the seconds.
"""

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset


class Photos(Dataset[torch.Tensor]):
    """Images of some tars, decoded, resized and normalised one by one."""

    def __init__(self, shards: list[Path], side: int) -> None:
        """Find the members; each is read when it is asked for."""
        self.side = side
        self.members = [(path, member) for path in shards for member in _images(path)]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.members)

    def __getitem__(self, number: int) -> torch.Tensor:
        """One image, [3, side, side]."""
        path, (offset, size) = self.members[number]
        with path.open("rb") as file:
            file.seek(offset)
            image = Image.open(io.BytesIO(file.read(size))).convert("RGB")
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return pixels.div(255).sub(0.5).div(0.5)


def _images(path: Path) -> Iterator[tuple[int, int]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                yield member.offset_data, member.size


def main() -> None:
    """Load, loop, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tuned", action="store_true", help="channels last and kept memory")
    options = parser.parse_args()
    sys.path.insert(0, str(options.data / "networks"))
    from mobilenet_v2_same import mobilenet_v2_same  # noqa: PLC0415 - found where the data lies

    start = time.perf_counter()
    network = mobilenet_v2_same().eval()
    network.load_state_dict(load_file(options.data / "networks" / "mobilenet_v2.safetensors"))
    if options.tuned:
        network = network.to(memory_format=torch.channels_last)
    photos = Photos(sorted((options.data / "photos").glob("*.tar")), 224)
    labels = []
    with torch.inference_mode():
        loader = DataLoader(photos, options.batch_size, num_workers=options.workers)
        for batch in loader:
            images = batch.to(memory_format=torch.channels_last) if options.tuned else batch
            labels.append(network(images).softmax(1).topk(5).indices)
    seconds = time.perf_counter() - start
    print(json.dumps({"images": len(torch.cat(labels)), "seconds": seconds}))


if __name__ == "__main__":
    main()
