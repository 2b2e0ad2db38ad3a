"""Making a piece of a network ready to run: on its device, at its precision, compiled if asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from policy.errors import InputError
from transforms.careful import is_memory
from transforms.networks_file import Precision

Ready = Callable[..., torch.Tensor]

_TYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """Where and how networks run; compiled for batches of so many images, or 0: not compiled."""

    device: torch.device
    compile_for: int = 0


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise InputError if the device cannot run networks at this precision."""
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision = fp16 needs --device cuda; on a CPU, wanted fp32 or bf16")


def takes_fused(precision: Precision, setting: Setting) -> bool:
    """Whether convolutions are fused with what follows them (see fuse.py).

    Those operators are oneDNN's, for a CPU, and know nothing of autocast; torch.compile fuses by
    itself.
    """
    plain = precision == "fp32" and not setting.compile_for
    return plain and setting.device.type == "cpu" and torch.backends.mkldnn.is_available()


def ready(piece: nn.Module, precision: Precision, setting: Setting) -> Ready:
    """A piece (in eval mode) as it is run: takes and gives batches, channels last.

    At a lower precision torch casts what goes into convolutions and products, and keeps what needs
    it in float32 (autocast).
    """
    device = setting.device
    run = piece.to(device).to(memory_format=torch.channels_last)
    if precision != "fp32":
        run = _Cast(run, device.type, _TYPES[precision])
    return Compiled(run, setting.compile_for, device) if setting.compile_for else run


class _Cast(nn.Module):
    """Runs a module under autocast."""

    def __init__(self, module: nn.Module, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.device_type = device_type
        self.dtype = dtype

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device_type, self.dtype):
            result: torch.Tensor = self.module(*tensors)
        return result


class Compiled:
    """A module compiled for batches of one size; smaller ones are filled up to it.

    A size takes torch half a minute, so there is one; where it does not fit into memory, its half.
    """

    def __init__(self, module: nn.Module, size: int, device: torch.device) -> None:
        """Compile when first called, for batches of `size` images."""
        self.size = size
        self._on_gpu = device.type == "cuda"
        # frozen weights are folded and laid out for the processor; a GPU replays recorded graphs
        how: dict[str, Any] = {"options": {"freezing": True}}
        if self._on_gpu:
            how = {"mode": "max-autotune"}
        self._run: Ready = torch.compile(module, dynamic=False, **how)

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Run a batch, in parts where it is larger than what was compiled."""
        n = len(tensors[0])
        parts = [
            self._filled([tensor[start : start + self.size] for tensor in tensors])
            for start in range(0, n, self.size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _filled(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        n, size = len(tensors[0]), self.size
        full = [torch.cat([t, t[-1:].expand(size - n, *t.shape[1:])]) for t in tensors]
        try:
            made = self._run(*(full if n < size else tensors))
        except Exception as error:
            if is_memory(error):
                self.size = max(1, size // 2)
            raise
        # the next replay of a recorded graph writes into the same memory
        return made[:n].clone() if self._on_gpu else made[:n]
