import pytest
import torch
from torch import nn

from policy.errors import InputError
from transforms.networks_file import Precision
from transforms.ready import Compiled, Setting, check_precision, ready, takes_fused

CPU = torch.device("cpu")


class Sum(nn.Module):
    """Adds two tensors, and keeps the sizes of the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(first))
        return first + second


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes long, and changes nothing of which batches are run."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)


@pytest.mark.parametrize(("n", "sizes"), [(8, [8]), (3, [8]), (1, [8]), (9, [8, 8]), (16, [8, 8])])
@pytest.mark.usefixtures("uncompiled")
def test_a_compiled_network_sees_only_full_batches(n: int, sizes: list[int]) -> None:
    total = Sum()
    tensors = torch.rand(n, 2, 3), torch.rand(n, 2, 3)
    assert torch.equal(Compiled(total, 8, CPU)(*tensors), sum(tensors))
    assert total.sizes == sizes


class Limited(Sum):
    """Has memory for three images only."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        if len(first) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().forward(first, second)


@pytest.mark.usefixtures("uncompiled")
def test_what_does_not_fit_into_memory_is_compiled_for_half_of_it() -> None:
    compiled, tensors = Compiled(Limited(), 8, CPU), (torch.rand(2, 3), torch.rand(2, 3))
    for size in (8, 4):
        assert compiled.size == size
        with pytest.raises(RuntimeError, match="can't allocate"):
            compiled(*tensors)
    assert torch.equal(compiled(*tensors), sum(tensors))
    assert compiled.size == 2


@pytest.mark.usefixtures("uncompiled")
def test_another_error_changes_no_size() -> None:
    class Broken(Sum):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes differ")

    compiled = Compiled(Broken(), 8, CPU)
    with pytest.raises(RuntimeError, match="shapes differ"):
        compiled(torch.rand(8, 1), torch.rand(8, 1))
    assert compiled.size == 8


@pytest.mark.slow
def test_compiled_it_computes_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 3))
    network = network.eval().requires_grad_(requires_grad=False)
    images = torch.rand(5, 3, 16, 16)
    with torch.inference_mode():
        compiled = ready(network, "fp32", Setting(CPU, 4))
        assert torch.allclose(compiled(images), network(images), atol=1e-5)


def test_a_lower_precision_is_that_of_products_and_convolutions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        exact, coarse = network(images), ready(network, "bf16", Setting(CPU))(images)
    assert (exact.dtype, coarse.dtype) == (torch.float32, torch.bfloat16)
    assert torch.allclose(coarse.float(), exact, atol=0.05)
    assert not torch.equal(coarse.float(), exact)


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="precision = fp16 needs --device cuda; on a CPU, wanted"):
        check_precision("fp16", CPU)
    check_precision("fp16", torch.device("cuda"))
    check_precision("bf16", CPU)


@pytest.mark.parametrize(
    ("precision", "device", "compile_for", "wanted"),
    [
        ("fp32", "cpu", 0, torch.backends.mkldnn.is_available()),
        ("fp32", "cpu", 64, False),
        ("bf16", "cpu", 0, False),
        ("fp32", "cuda", 0, False),
    ],
)
def test_only_plain_networks_on_a_cpu_are_fused(
    precision: Precision, device: str, compile_for: int, *, wanted: bool
) -> None:
    assert takes_fused(precision, Setting(torch.device(device), compile_for)) == wanted
