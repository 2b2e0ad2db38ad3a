import numpy as np
import pytest
import tiny

from policy.errors import InputError
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.decoding import HereDecoder
from transforms.images import InputSpec

GOOD = tiny.image_bytes(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_pixels": 0}, "--max-pixels 0: wanted at least 1"),
        ({"max_image_bytes": -1}, "--max-image-bytes -1: wanted at least 1"),
        ({"max_image_bytes": 1 << 30}, "--max-image-bytes 1073741824: wanted at most 67108864"),
        ({"max_ratio": 0}, "--max-image-ratio 0: wanted at least 1"),
        ({"seconds": 0}, "--decode-seconds 0: wanted more than 0"),
        ({"seconds": float("nan")}, "--decode-seconds nan: wanted more than 0, and finite"),
        ({"seconds": float("inf")}, "--decode-seconds inf: wanted more than 0, and finite"),
    ],
)
def test_limits_that_nothing_meets_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecodeLimits(**given)


def test_an_image_that_took_too_long_is_rejected_afterwards() -> None:
    with pytest.raises(BadImage, match=r"at most 1e-09 \(--decode-seconds\)") as caught:
        HereDecoder(DecodeLimits(seconds=1e-9))(GOOD, {}, keep_image=False)
    assert caught.value.status == "timeout"


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("DefaultCPUAllocator: ...")])
def test_an_input_that_does_not_fit_into_memory_costs_one_record(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fit(*_: object) -> None:
        raise error

    monkeypatch.setattr("transforms.decoding.fit", fit)
    spec = InputSpec(resize=(2, 2), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(BadImage, match="not enough memory to resize") as caught:
        HereDecoder()(GOOD, {"input": spec}, keep_image=False)
    assert caught.value.status == "memory"
