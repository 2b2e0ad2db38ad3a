"""The ceiling of compute: one network as the product runs it, on batches that are ready."""

import itertools
from collections import deque
from collections.abc import Callable

import torch

from benchmarks.peers.corpus import PER_SHARD, encoded_images
from benchmarks.peers.job import begin, finish, told
from benchmarks.peers.labels import TOP
from launch.memory import keep_freed_memory
from policy.answers import Answers
from transforms.decoding import HereDecoder
from transforms.networks_file import read_networks
from transforms.stages import Engine

LEAST = 512
"""Images that are kept in memory, or a batch; they come around again."""


@torch.inference_mode()
def main() -> None:
    """Prepare, then run and count."""
    job = told()
    keep_freed_memory()
    size = job.batch_size
    compile_for = size if job.compiled else 0
    networks = read_networks(job.networks)
    engine = Engine(networks, job.device, only=[job.network], compile_for=compile_for)
    ((stage, spec),) = engine.inputs.items()
    decoder = HereDecoder(side=engine.decode_side)
    encoded = (jpeg for path in job.paths for _, jpeg in encoded_images(path))
    pixels = [
        decoder(jpeg, {stage: spec}, keep_image=False).pixels[stage]
        for jpeg in itertools.islice(encoded, max(LEAST, size))
    ]
    if len(pixels) < size:
        raise SystemExit(f"{len(pixels)} images in {job.shards}; wanted a batch of {size} at least")
    full = [pixels[start : start + size] for start in range(0, len(pixels) - size + 1, size)]
    batches = [{stage: engine.input_batch(stage, part)} for part in full]
    engine.answer(job.network, batches[0], TOP)  # compiled, where it is
    wanted, done = len(job.paths) * PER_SHARD, 0
    begun: deque[Callable[[], Answers]] = deque()
    begin(job)
    for batch in itertools.cycle(batches):
        begun.append(engine.begin_answer(job.network, batch, TOP))
        if len(begun) > engine.in_flight:
            begun.popleft()()
        done += size
        if done >= wanted:
            break
    for wait in begun:
        wait()
    finish(job, done)


if __name__ == "__main__":
    main()
