"""The ceiling of compute: one network as the product runs it, on pixels that lie in memory."""

import itertools

import torch

from benchmarks.peers.corpus import PER_SHARD, encoded_images
from benchmarks.peers.job import begin, finish, told
from benchmarks.peers.labels import TOP
from launch.memory import keep_freed_memory
from transforms.decoding import HereDecoder
from transforms.networks_file import read_networks
from transforms.stages import Engine

MOST = 512
"""Images that are kept in memory; more come around again."""


@torch.inference_mode()
def main() -> None:
    """Prepare, then run and count."""
    job = told()
    keep_freed_memory()
    engine = Engine(read_networks(job.networks), "cpu", only=[job.network])
    ((stage, spec),) = engine.inputs.items()
    decoder = HereDecoder(side=engine.decode_side)
    encoded = (jpeg for path in job.paths for _, jpeg in encoded_images(path))
    pixels = [
        decoder(jpeg, {stage: spec}, keep_image=False).pixels[stage]
        for jpeg in itertools.islice(encoded, MOST)
    ]
    batches = [
        {stage: engine.input_batch(stage, pixels[start : start + job.batch_size])}
        for start in range(0, len(pixels), job.batch_size)
    ]
    wanted, done = len(job.paths) * PER_SHARD, 0
    begin(job)
    for batch in itertools.cycle(batches):
        engine.answer(job.network, batch, TOP)
        done += len(batch[stage])
        if done >= wanted:
            break
    finish(job, done)


if __name__ == "__main__":
    main()
