import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from policy.answers import answers_from_logits
from policy.errors import InputError
from policy.heads import Head, heads_from_bytes, heads_to_bytes

NAN, INF = float("nan"), float("inf")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def assert_same(found: dict[str, Head], wanted: dict[str, Head]) -> None:
    assert found.keys() == wanted.keys()
    for name, head in wanted.items():
        np.testing.assert_array_equal(found[name].weight, head.weight)
        np.testing.assert_array_equal(found[name].bias, head.bias)


def heads() -> dict[str, Head]:
    rng = np.random.default_rng(0)
    return {"net.layer1.exit": tiny.head(rng), "net.layer2.exit": tiny.head(rng, 9)}


def test_heads_read_back_equal() -> None:
    assert_same(heads_from_bytes(heads_to_bytes(heads()), "h"), heads())


def test_no_heads_read_back_as_none() -> None:
    assert heads_from_bytes(heads_to_bytes({}), "h") == {}


def test_bytes_do_not_depend_on_the_order_of_the_heads() -> None:
    turned = dict(reversed(heads().items()))
    assert heads_to_bytes(turned) == heads_to_bytes(heads())


@pytest.mark.parametrize(
    "weight",
    [
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(12, dtype=np.float32).reshape(4, 3).T,
        np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2],
    ],
    ids=["fortran", "transposed", "strided"],
)
def test_a_weight_reads_back_equal_however_it_lies_in_memory(weight: np.ndarray) -> None:
    wanted = {"a": Head(weight, zeros(3))}
    assert_same(heads_from_bytes(heads_to_bytes(wanted), "h"), wanted)


def test_a_head_answers_by_its_linear_function_of_the_features() -> None:
    rng = np.random.default_rng(1)
    head = Head(tiny.head(rng).weight, rng.normal(size=4).astype(np.float32))
    features = rng.normal(size=(5, 4)).astype(np.float16)
    logits = [
        [float(w @ x.astype(np.float32)) + b for w, b in zip(head.weight, head.bias, strict=True)]
        for x in features
    ]
    found, wanted = head.answers(features, 3), answers_from_logits(np.array(logits), 3)
    np.testing.assert_array_equal(found.classes, wanted.classes)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=1e-4)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="head: fitted on 4 features, given 5"):
        tiny.head(np.random.default_rng(0)).answers(np.zeros((2, 5), np.float16), None)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [(zeros(3), zeros(3)), (zeros(3, 2), zeros(2)), (zeros(3, 2), zeros(3, 1))],
)
def test_a_head_whose_shapes_do_not_fit_is_refused(weight: np.ndarray, bias: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"wanted weight \[classes, features\] and bias.*found \("):
        Head(weight, bias)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_head_with_numbers_that_are_none_is_refused(number: float, part: str) -> None:
    weight, bias = zeros(2, 2), zeros(2)
    {"weight": weight, "bias": bias}[part].flat[1] = number
    with pytest.raises(InputError, match="holds NaN or infinity; fit it again"):
        Head(weight, bias)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, heads_to_bytes(heads())[:-1]])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^p/heads\.safetensors: not a safetensors file: "):
        heads_from_bytes(content, "p/heads.safetensors")


@pytest.mark.parametrize("name", ["a.weight", "a.bias", "a.gamma", "weight"])
def test_half_a_head_is_refused(name: str) -> None:
    head = name.rpartition(".")[0]
    with pytest.raises(InputError, match=f"^h: head '{head}' lacks its weight or its bias"):
        heads_from_bytes(save({name: zeros(2, 2)}), "h")


def test_shapes_are_checked_on_reading_too() -> None:
    with pytest.raises(InputError, match="wanted weight"):
        heads_from_bytes(save({"a.weight": zeros(2, 2), "a.bias": zeros(3)}), "h")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_a_head_of_another_number_type_is_refused(kind: torch.dtype) -> None:
    content = save_torch({"a.weight": torch.zeros(2, 2, dtype=kind), "a.bias": torch.zeros(2)})
    with pytest.raises(InputError, match="float32"):
        heads_from_bytes(content, "h")
