"""Real data and trained networks for `adalabel demo`: 1,797 handwritten digits of scikit-learn.

The images are those of the test set of Alpaydin & Kaynak, "Optical Recognition of Handwritten
Digits" (UCI, 1998), 8 x 8 pixels each; scikit-learn carries them, so nothing is downloaded.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional

from pipelines import demo_networks
from policy.split import split
from transforms.images import InputSpec
from transforms.resize import fit

SIDES = {"small": 8, "medium": 16, "large": 32}
"""The networks, cheapest first, and the side in pixels of what they see."""

SHARD_RECORDS = 100
EPOCHS = 12
BATCH = 64

_HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True)
class Digits:
    """Images [n, 8, 8] uint8 with their keys and labels [n]."""

    keys: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.intp]) -> "Digits":
        """Some of them."""
        return Digits(tuple(self.keys[row] for row in rows), self.images[rows], self.labels[rows])


def load_parts(seed: int) -> dict[str, Digits]:
    """A third of the digits for training the networks, for the table, and for the corpus."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    keys = tuple(f"digit-{number:04d}" for number in range(len(labels)))
    everything = Digits(keys, pixels, labels)
    shares = {"train": 1 / 3, "table": 1 / 3, "corpus": 1 / 3}
    return {name: everything.take(rows) for name, rows in split(keys, shares, seed).items()}


def write_shards(folder: Path, name: str, digits: Digits) -> str:
    """WebDataset tars of PNG images and labels; returns the glob that matches them."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(digits.keys), SHARD_RECORDS):
        path = folder / f"{name}-{start // SHARD_RECORDS:05d}.tar"
        with tarfile.open(path, "w") as archive:
            for row in range(start, min(start + SHARD_RECORDS, len(digits.keys))):
                buffer = io.BytesIO()
                Image.fromarray(digits.images[row]).save(buffer, "PNG")
                _add(archive, f"{digits.keys[row]}.cls", str(digits.labels[row]).encode())
                _add(archive, f"{digits.keys[row]}.png", buffer.getvalue())
    return str(folder / f"{name}-*.tar")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_networks(folder: Path, digits: Digits, seed: int) -> Path:
    """Train the three networks and write their weights, class list and networks file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "digits.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    entries = ['classes = "digits.txt"\n']
    for name, side in SIDES.items():
        network = train(name, side, digits, seed)
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        entries.append(
            f'[[network]]\nname    = "{name}"\nmodel   = "pipelines.demo_networks:{name}"\n'
            f'weights = "{name}.safetensors"\n'
            f"input   = {{ resize = [{side}, {side}], mean = {_HALF}, std = {_HALF} }}\n"
        )
    path = folder / "networks.toml"
    path.write_text("\n".join(entries))
    return path


def train(name: str, side: int, digits: Digits, seed: int) -> torch.nn.Module:
    """Train one network on digits of this side; seconds on two cores."""
    torch.manual_seed(seed)
    network: torch.nn.Module = getattr(demo_networks, name)()
    network = network.train().to(memory_format=torch.channels_last)
    inputs, labels = _inputs(digits.images, side), torch.from_numpy(digits.labels)
    steps = EPOCHS * -(-len(labels) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = functional.cross_entropy(network(inputs[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network


def _inputs(images: NDArray[np.uint8], side: int) -> torch.Tensor:
    """[n, 3, side, side], made as a worker would make them."""
    spec = InputSpec(resize=(side, side), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    pixels = np.stack([fit(np.stack([image] * 3, axis=-1), spec) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
