import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from transforms.images import InputSpec
from transforms.resize import fit

GREY = (0.5, 0.5, 0.5)
SIZES = [(20, 24), (24, 20), (28, 28), (29, 28), (300, 28), (45, 5), (7, 90), (1, 1), (427, 640)]
"""Height and width."""


def spec(
    resize: int | tuple[int, int], crop: int | None = None, how: str = "bilinear"
) -> InputSpec:
    return InputSpec(resize=resize, crop=crop, mean=GREY, std=GREY, interpolation=how)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def of_torchvision(transform: v2.Transform, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = transform(torch.from_numpy(image).permute(2, 0, 1)).numpy()
    return made.transpose(1, 2, 0)


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fit_equals_torchvision_resize_and_centre_crop(size: tuple[int, int], how: str) -> None:
    image = noise(*size)
    modes = v2.InterpolationMode
    for resize, crop in ((28, 24), (28, 27), (28, 28), (33, 20)):
        transform = v2.Compose([v2.Resize(resize, modes(how)), v2.CenterCrop(crop)])
        found = fit(image, spec(resize, crop, how))
        assert np.array_equal(found, of_torchvision(transform, image)), (resize, crop)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fit_to_an_exact_size_equals_torchvision(size: tuple[int, int]) -> None:
    image = noise(*size)
    resize = v2.Resize((12, 30))
    assert np.array_equal(fit(image, spec((12, 30))), of_torchvision(resize, image))
    both = v2.Compose([v2.Resize((32, 30)), v2.CenterCrop(20)])
    assert np.array_equal(fit(image, spec((32, 30), 20)), of_torchvision(both, image))


@pytest.mark.parametrize(("how", "most"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fit_differs_from_pillow_by_rounding_only(
    size: tuple[int, int], how: str, most: int
) -> None:
    """Pillow is the slow and obvious way; it counts in more digits."""
    image, side = noise(*size), (12, 30)
    slow = Image.fromarray(image).resize(side[::-1], Image.Resampling[how.upper()])
    differences = np.abs(fit(image, spec(side, how=how)).astype(int) - np.asarray(slow))
    assert differences.max() <= most
    assert (differences > 0).mean() < 0.03


def test_an_image_that_fits_already_is_not_resampled() -> None:
    image = noise(28, 40)
    assert np.array_equal(fit(image, spec(28, 28)), image[:, 6:34])


@pytest.mark.parametrize(
    ("wanted", "size"),
    [(spec(28, 24), (24, 24)), (spec((12, 30)), (12, 30)), (spec((9, 9), 5), (5, 5))],
)
def test_the_size_of_an_input_is_that_of_what_is_made(
    wanted: InputSpec, size: tuple[int, int]
) -> None:
    assert wanted.size == size
    found = fit(noise(20, 24), wanted)
    assert found.shape == (*size, 3)
    assert found.flags.c_contiguous
