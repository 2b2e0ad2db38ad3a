"""The ceiling of decoding: all images through the product's decoder, by threads, nothing else."""

from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.corpus import encoded_images
from benchmarks.peers.job import begin, finish, told
from benchmarks.peers.networks import SPEC
from transforms.decoding import HereDecoder
from transforms.images import InputSpec
from transforms.networks import decode_side
from transforms.networks_file import read_networks

HALF = (0.5, 0.5, 0.5)


def main() -> None:
    """Read first, then decode and resize for one network."""
    job = told()
    side = SPEC[job.network].side
    inputs = {job.network: InputSpec(resize=(side, side), mean=HALF, std=HALF)}
    encoded = [jpeg for path in job.paths for _, jpeg in encoded_images(path)]
    decoder = HereDecoder(side=decode_side(read_networks(job.networks)))

    def pixels_of(jpeg: bytes) -> int:
        return decoder(jpeg, inputs, keep_image=False).pixels[job.network].size

    with ThreadPoolExecutor(job.workers) as pool:
        begin(job)
        done = sum(size > 0 for size in pool.map(pixels_of, encoded))
        finish(job, done)


if __name__ == "__main__":
    main()
