"""timm's way: its loader and the loop of its inference script, over the same tars."""

import io
from pathlib import Path

import torch
from timm.data import ImageDataset, create_loader
from timm.data.readers.reader import Reader

from benchmarks.peers.corpus import image_places, read_place
from benchmarks.peers.job import begin, finish, told
from benchmarks.peers.labels import best, write_labels
from benchmarks.peers.networks import SPEC, folded, loaded
from launch.memory import keep_freed_memory

BATCH_SIZE = 256
"""The script's default."""
HALF = (0.5, 0.5, 0.5)


class Tars(Reader):
    """Images of tars; timm's own reader of tars wants the classes as folders."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.places = image_places(paths)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[io.BytesIO, int]:
        return io.BytesIO(read_place(self.places[number])), 0

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:  # noqa: ARG002, FBT001, FBT002 - timm's
        return self.places[index][0]


@torch.inference_mode()
def main() -> None:
    """Load, loop, write. Tuned: --channels-last, memory kept, folded, batches as the others."""
    job = told()
    network = loaded(job.data, job.network)
    if job.tuned:
        keep_freed_memory()
        network = folded(network).to(memory_format=torch.channels_last)
    begin(job)
    dataset = ImageDataset("", reader=Tars(job.paths))
    loader = create_loader(
        dataset,
        input_size=(3, SPEC[job.network].side, SPEC[job.network].side),
        batch_size=job.batch_size if job.tuned else BATCH_SIZE,
        interpolation="bilinear",
        mean=HALF,
        std=HALF,
        crop_pct=1.0,
        crop_mode="squash",
        num_workers=job.workers,
        device=torch.device("cpu"),
    )
    classes, probabilities = [], []
    for images, _ in loader:
        batch = images.contiguous(memory_format=torch.channels_last) if job.tuned else images
        with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bfloat16"):
            logits = network(batch)
        found, sure = best(logits.float())
        classes.append(found)
        probabilities.append(sure)
    keys = dataset.reader.filenames()
    write_labels(Path(job.output) / "labels.parquet", keys, classes, probabilities)
    finish(job, len(keys))


if __name__ == "__main__":
    main()
