"""Fusing each convolution with what follows it into one call of oneDNN, on a CPU.

The sum and the activation behind a convolution each read and write all of its output again. oneDNN
computes them while that is still in the processor's registers, and takes weights that were laid
out for the processor once instead of at every batch. The operators are those that torch.compile
calls; this way they need no compiler and no warm-up.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from policy.errors import InputError
from transforms.cut import INPUT, Piece, trace
from transforms.fold import is_same


@dataclass(frozen=True)
class Activation:
    """How oneDNN calls it."""

    name: str
    scalars: tuple[float, ...] = ()


NONE = Activation("none")
RELU6 = Activation("hardtanh", (0.0, 6.0))
_MODULES: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation("relu"),
    nn.ReLU6: RELU6,
    nn.Hardswish: Activation("hardswish"),
    nn.SiLU: Activation("swish"),
    nn.Sigmoid: Activation("sigmoid"),
}
_FUNCTIONS: dict[object, Activation] = {
    F.relu: Activation("relu"),
    torch.relu_: Activation("relu"),
    torch.relu: Activation("relu"),
    F.relu6: RELU6,
    F.hardswish: Activation("hardswish"),
    F.silu: Activation("swish"),
    torch.sigmoid: Activation("sigmoid"),
}
_SUMS = (operator.add, operator.iadd, torch.add)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)


def fuse_pieces(pieces: Sequence[Piece], sample: torch.Tensor) -> tuple[Piece, ...]:
    """The pieces of a network, each fused; `sample` is a small batch for the first one."""
    made, fused = {INPUT: sample}, []
    for piece in pieces:
        tensors = [made[need] for need in piece.needs]
        made[piece.name] = piece(*_copies(tensors))
        fused.append(Piece(piece.name, piece.needs, fuse(piece.module, tensors)))
    return tuple(fused)


def fuse(module: nn.Module, tensors: Sequence[torch.Tensor]) -> nn.Module:
    """A module (in eval mode, on the CPU) that makes the same of tensors like these, faster.

    What torch.fx cannot trace, what oneDNN's operators refuse, and what computes something else
    once fused, is returned as it is. They are torch's own, and may be others in another version.
    """
    try:
        fused = _fused(module, _copies(tensors))
        made = fused(*_copies(tensors))
    except (InputError, RuntimeError, AttributeError):
        return module
    return fused if is_same(made, module(*_copies(tensors))) else module


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For a network that overwrites what it is given."""
    return [tensor.clone() for tensor in tensors]


def _fused(module: nn.Module, tensors: Sequence[torch.Tensor]) -> fx.GraphModule:
    fused = fx.GraphModule(module, trace(module))
    _skip_nothings(fused)
    ShapeProp(fused).propagate(*tensors)
    for node in list(fused.graph.nodes):
        if _is_convolution(node, fused):
            _fuse(_Chain.behind(node, fused), fused)
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


class Convolution(nn.Module):
    """A convolution, a sum with another tensor where one is given, and an activation."""

    def __init__(self, plain: nn.Conv2d, activation: Activation) -> None:
        """Lay out the weights of a convolution for this processor."""
        super().__init__()
        places = (plain.padding, plain.stride, plain.dilation)
        self.where: tuple[Any, ...] = (*(list(pair) for pair in places), plain.groups)
        weight = plain.weight.detach().to(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.where)  # noqa: SLF001
        self.shape = weight.to("meta")
        self.bias = None if plain.bias is None else plain.bias.detach()
        self.activation = activation

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """[n, channels, height, width], all; runs on the meta device, where costs are counted."""
        if x.is_meta:
            padding, stride, dilation, groups = self.where
            return F.conv2d(x, self.shape, None, stride, padding, dilation, groups)
        weights = (self.weight, self.bias, *self.where)
        name, scalars = self.activation.name, list(self.activation.scalars)
        run = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001
        made: torch.Tensor
        if other is None:
            made = run(x, *weights, name, scalars, "")
        else:
            after = None if name == "none" else name
            made = run.binary(x, other, *weights, "add", 1.0, after, scalars, "")
        return made


@dataclass(frozen=True)
class _Chain:
    """Calls that one call can do: a convolution, perhaps a sum, perhaps an activation."""

    nodes: tuple[fx.Node, ...]
    other: fx.Node | None = None
    activation: Activation = NONE

    @classmethod
    def behind(cls, node: fx.Node, network: fx.GraphModule) -> "_Chain":
        """What follows a convolution, as long as nothing else sees what is made on the way."""
        chain = cls((node,))
        after = _only_user(node)
        other = _added(after, node) if after else None
        if after and other and not _overwrites(node, after, network):
            chain = cls((node, after), other)
            after = _only_user(after)
        activation = _activation(after, network) if after else None
        if after and activation:
            return cls((*chain.nodes, after), chain.other, activation)
        return chain


def _skip_nothings(network: fx.GraphModule) -> None:
    """Drop the calls of modules that give back what they get, as folding leaves them."""
    for node in list(network.graph.nodes):
        is_call = node.op == "call_module" and len(node.args) == 1
        module = network.get_submodule(str(node.target)) if is_call else None
        if module and type(module) in (nn.Identity, nn.Dropout) and not _is_hooked(module):
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)


def _fuse(chain: _Chain, network: fx.GraphModule) -> None:
    """Put one call in the place of some: of the first of them that has all it takes."""
    first, last, graph = chain.nodes[0], chain.nodes[-1], network.graph
    place = chain.nodes[1] if chain.other else first
    plain: Any = network.get_submodule(str(first.target))
    name = f"fused_{first.name}"
    network.add_submodule(name, Convolution(plain, chain.activation))
    with graph.inserting_before(place):
        given = (first.args[0], *([chain.other] if chain.other else []))
        call = graph.call_module(name, given)
    call.meta = dict(last.meta)
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        graph.erase_node(node)


def _is_convolution(node: fx.Node, network: fx.GraphModule) -> bool:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = network.get_submodule(str(node.target))
    calls = [other for other in network.graph.nodes if other.target == node.target]
    return (
        type(module) is nn.Conv2d  # another class may do something else
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.dtype == torch.float32
        and not _is_hooked(module)
        and len(calls) == 1
    )


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(node: fx.Node, to: fx.Node) -> fx.Node | None:
    """What a call adds to something of the same shape; None if it does something else."""
    others = [one for one in node.all_input_nodes if one is not to]
    if node.target not in _SUMS or node.kwargs or len(others) != 1:
        return None
    (other,) = others
    if node.target is operator.iadd and node.args[0] is not to:
        return None  # overwrites what others may look at
    kinds = [_shape_and_type(one) for one in (to, other)]
    return other if kinds[0] and kinds[0] == kinds[1] else None


def _shape_and_type(node: fx.Node) -> tuple[torch.Size, torch.dtype] | None:
    """None for what is no tensor."""
    found: Any = node.meta.get("tensor_meta")
    return (found.shape, found.dtype) if hasattr(found, "dtype") else None


def _overwrites(first: fx.Node, last: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a call between two others changes a tensor in place: none may be moved past it."""
    order = list(network.graph.nodes)
    between = order[order.index(first) + 1 : order.index(last)]
    return any(_is_in_place(node, network) for node in between)


def _is_in_place(node: fx.Node, network: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    ends = name.endswith("_") and not name.endswith("__")
    return ends or node.target in _IN_PLACE or bool(node.kwargs.get("inplace"))


def _is_hooked(module: nn.Module) -> bool:
    """Whether somebody else looks in; there is no public way to see it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001


def _activation(node: fx.Node, network: fx.GraphModule) -> Activation | None:
    if node.op == "call_module":
        return _MODULES.get(type(network.get_submodule(str(node.target))))
    if node.kwargs.keys() - {"inplace"} or len(node.args) != 1:
        return None
    return _FUNCTIONS.get(node.target)
