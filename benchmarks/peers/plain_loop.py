"""The loop everybody writes first: DataLoader workers decode, one network runs on all images."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.corpus import decoded, image_places, pixels, read_place, tensor
from benchmarks.peers.job import Job, begin, finish, told
from benchmarks.peers.labels import best, write_labels
from benchmarks.peers.networks import SPEC, network_of
from launch.memory import keep_freed_memory


class Photos(Dataset[torch.Tensor]):
    """Images decoded and resized one by one; normalised here, unless that is left to the batch."""

    def __init__(self, job: Job) -> None:
        """Find the members; each is read when it is asked for."""
        self.side = SPEC[job.network].side
        self.tuned = job.tuned
        self.places = image_places(job.paths)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> torch.Tensor:
        """One image: [3, side, side], or uint8 [side, side, 3] for the tuned network."""
        image = decoded(read_place(self.places[number]))
        if self.tuned:
            return torch.from_numpy(pixels(image, self.side).copy())
        return tensor(image, self.side)


@torch.inference_mode()
def main() -> None:
    """Load, loop, write."""
    job = told()
    if job.tuned:
        keep_freed_memory()
    network = network_of(job)
    begin(job)
    photos = Photos(job)
    loader = DataLoader(photos, job.batch_size, num_workers=job.workers)
    found = [best(network(batch)) for batch in loader]
    classes, probabilities = zip(*found, strict=True)
    keys = [key for key, *_ in photos.places]
    write_labels(Path(job.output) / "labels.parquet", keys, classes, probabilities)
    finish(job, len(keys))


if __name__ == "__main__":
    main()
