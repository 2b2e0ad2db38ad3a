import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from policy.answers import answers_from_logits
from transforms.answers_of import answers_of, reduced

NAN, INF = float("nan"), float("inf")


def logits(seed: int) -> NDArray[np.float32]:
    """Of many scales, with equal ones, and rows that are not finite."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(60, 40), scale=10.0 ** rng.integers(-3, 3)).astype(np.float32)
    made[:20] = rng.integers(0, 5, (20, 40))
    made[20:25, rng.integers(0, 40)] = (NAN, INF, -INF, -INF, 0.0)
    made[24, :39] = -INF
    made[25] = -INF
    made[26] = 0
    return made


@pytest.mark.parametrize("k", [1, 5, 40, None])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_gpu_is_asked_for_is_what_numpy_makes(seed: int, k: int | None) -> None:
    given = logits(seed)
    wanted = answers_from_logits(given, k)
    classes, probabilities, entropy = (part.numpy() for part in reduced(torch.from_numpy(given), k))
    assert (classes.dtype, probabilities.dtype, entropy.dtype) == (np.int32, np.float32, np.float32)
    np.testing.assert_array_equal(classes, wanted.classes)
    np.testing.assert_allclose(probabilities, wanted.probabilities, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(entropy, wanted.entropy, rtol=1e-4, atol=1e-5)


def test_logits_of_a_lower_precision_are_widened_first() -> None:
    given = torch.from_numpy(logits(0)[:20]).to(torch.bfloat16)
    found = answers_of(given, 3)()
    wanted = answers_from_logits(given.float().numpy(), 3)
    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same() -> None:
    given = logits(1)
    wanted = answers_from_logits(given, 5)
    found = answers_of(torch.from_numpy(given).to("cuda"), 5)()
    np.testing.assert_array_equal(found.classes, wanted.classes)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=1e-4, atol=1e-6)
