import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transforms.images import InputSpec
from transforms.normalise import Normaliser

SPEC = InputSpec(resize=(64, 96), mean=(0.1, 0.4, 0.7), std=(0.2, 0.3, 0.5))
CPU = torch.device("cpu")


def images(rng: np.random.Generator, n: int) -> list[NDArray[np.uint8]]:
    return list(rng.integers(0, 256, (n, *SPEC.size, 3), dtype=np.uint8))


def plainly(pixels: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The formula, in float64."""
    scaled = np.stack(pixels) / 255
    return ((scaled - np.array(SPEC.mean)) / np.array(SPEC.std)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("n", [1, 5])
def test_each_colour_is_scaled_less_its_mean_and_by_its_deviation(n: int) -> None:
    given = images(np.random.default_rng(n), n)
    batch = Normaliser(SPEC, CPU)(given)
    assert batch.shape == (n, 3, 64, 96)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), plainly(given), atol=1e-5)


def test_a_batch_is_channels_last() -> None:
    batch = Normaliser(SPEC, CPU)(images(np.random.default_rng(0), 2))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_the_images_are_not_written_to() -> None:
    given = images(np.random.default_rng(0), 2)
    before = np.stack(given)
    Normaliser(SPEC, CPU)(given)
    assert np.array_equal(np.stack(given), before)


def test_a_batch_stays_as_it_is_when_the_next_is_made() -> None:
    normalise, rng = Normaliser(SPEC, CPU), np.random.default_rng(0)
    first = normalise(images(rng, 2))
    kept = first.clone()
    normalise(images(rng, 2))
    assert torch.equal(first, kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("products", [0, 8])
def test_batches_copied_to_a_gpu_busy_or_not_are_those_of_the_cpu(products: int) -> None:
    """Idle, it would read before the copy ended; busy, after the next copy took the same memory."""
    gpu, rng = torch.device("cuda"), np.random.default_rng(0)
    on_gpu, on_cpu = Normaliser(SPEC, gpu), Normaliser(SPEC, CPU)
    given = [images(rng, 256) for _ in range(6)]  # 4.7 MB each, long enough to copy
    wanted = [on_cpu(pixels) for pixels in given]
    busy = torch.rand((4096, 4096), device=gpu)
    for _ in range(8):  # over and over in the same memory
        torch.cuda.synchronize()
        found = []
        for pixels in given:
            for _ in range(products):
                busy = (busy @ busy).sin_()  # milliseconds each, in which the host goes on
            found.append(on_gpu(pixels))
        for batch, cpu in zip(found, wanted, strict=True):
            assert batch.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(batch.cpu(), cpu)
