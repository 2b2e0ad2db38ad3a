"""Folding batch normalisation into the convolution before it: one pass over memory less each.

In evaluation w * x + b, normalised by a mean, a variance, a scale and a shift, is again a weight
and a bias. The result rounds otherwise in the last bits, no more than another batch size does.
"""

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from policy.errors import InputError
from transforms.cut import last_node, trace

_NEAR = 1e-3
"""Times the largest output: what changes more has met a module that does something else."""


def fold(network: nn.Module, exits: tuple[str, ...], sample: torch.Tensor) -> nn.Module:
    """A copy (in eval mode) that computes the same of images like `sample` with fewer operations.

    What torch.fx cannot trace, and what computes something else once folded, is returned as it is.
    A convolution at which one of the `exits` looks is left alone.
    """
    try:
        pairs = _pairs(network, exits)
    except InputError:
        return network
    if not pairs:
        return network
    folded = copy.deepcopy(network)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    made, wanted = folded(sample.clone()), network(sample.clone())  # which may overwrite it
    return folded if is_same(made, wanted) else network


def is_same(made: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether two networks made the same of a sample, but for rounding."""
    near = _NEAR * float(wanted.detach().nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(made, wanted, rtol=0, atol=near, equal_nan=True)


def _pairs(network: nn.Module, exits: tuple[str, ...]) -> list[tuple[str, str]]:
    """Paths of convolutions and of the normalisations that alone see what they make."""
    graph = trace(network)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = [str(node.target) for node in calls]
    seen_by_exits = {last_node(path, graph, network) for path in exits}
    pairs = []
    for node in calls:
        before = node.args[0] if node.args else None
        if (
            isinstance(before, fx.Node)
            and before in calls
            and len(before.users) == 1
            and before not in seen_by_exits
            and times.count(str(node.target)) == times.count(str(before.target)) == 1
            and _is_convolution(network.get_submodule(str(before.target)))
            and _is_norm(network.get_submodule(str(node.target)))
        ):
            pairs.append((str(before.target), str(node.target)))
    return pairs


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and not hasattr(module, "parametrizations")


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _fold(network: nn.Module, convolution_path: str, norm_path: str) -> None:
    convolution: Any = network.get_submodule(convolution_path)
    norm: Any = network.get_submodule(norm_path)
    network.set_submodule(convolution_path, fuse_conv_bn_eval(convolution, norm))
    network.set_submodule(norm_path, nn.Identity())
