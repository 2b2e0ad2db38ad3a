"""What each piece of a network costs: its multiply-accumulates, counted on torch's meta device."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from transforms.cut import INPUT, Piece
from transforms.images import InputSpec


def gmacs(pieces: Sequence[Piece], spec: InputSpec) -> list[float]:
    """Multiply-accumulates of each piece in 1e9 per image; the pieces stay where they are."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - imports Triton, too

    made = {INPUT: torch.empty((1, 3, *spec.size), device="meta")}
    counts = []
    for piece in pieces:
        weights = {name: tensor.to("meta") for name, tensor in _tensors(piece)}
        tensors = tuple(made[need] for need in piece.needs)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made[piece.name] = torch.func.functional_call(piece, weights, tensors)
        counts.append(counter.get_total_flops() / 2 / 1e9)
    return counts


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, tied ones under each of theirs."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
