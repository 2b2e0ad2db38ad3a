"""Cutting a network at named modules, so that it can be run stage by stage.

torch.fx records the network as a graph of calls. A module that torch.fx cannot look into (its code
branches on sizes, say) stays one call of that graph: the cut lies between calls, so what happens
inside one does not matter. Each piece makes exactly one tensor; where a value crosses a cut beside
the named module (a residual connection, say), it becomes a piece of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from policy.errors import InputError

INPUT = "input"
"""What the first pieces take: the network's input batch."""


class Piece(nn.Module):
    """A part of a network: takes the tensors of `needs` in order and makes the one called `name`.

    `name` is the path of the module that ends here, "" for the end of the network.
    """

    def __init__(self, name: str, needs: tuple[str, ...], module: nn.Module) -> None:
        """Wrap the module that does the work."""
        super().__init__()
        self.name = name
        self.needs = needs
        self.module = module

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Run this part alone."""
        result: torch.Tensor = self.module(*tensors)
        return result


def cut(network: nn.Module, modules: tuple[str, ...]) -> tuple[Piece, ...]:
    """Cut a network (in eval mode) after these modules, given by path.

    Returns the pieces in an order in which they can run; the last one ends the network. Raises
    InputError if the network cannot be traced or a module is not a place where it can be cut.
    """
    if not modules:
        return (Piece("", (INPUT,), network),)
    graph = trace(network)
    ends = {_result(graph): ""}
    for path in modules:
        node = last_node(path, graph, network)
        if node in ends:
            other = repr(ends[node]) if ends[node] else "the network itself"
            raise InputError(f"exit {path!r}: ends where {other} ends; name one of the two")
        ends[node] = path
    while True:
        owner = _owners(graph, ends)
        crossing = {
            node: node.name
            for node, end in owner.items()
            if node not in ends and any(owner.get(user, end) is not end for user in node.users)
        }
        if not crossing:
            break
        ends |= crossing
    order = [node for node in graph.nodes if node in ends]
    return tuple(_piece(network, graph, end, ends, owner) for end in order)


class _Tracer(fx.Tracer):
    """Takes the modules in `opaque` as single calls, and knows in which module a trace failed."""

    def __init__(self, opaque: set[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.failed_in: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.opaque or super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - the base class says so
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or self.path_of_module(m)
            raise


def trace(network: nn.Module) -> fx.Graph:
    """The calls of a network in evaluation; what torch.fx cannot look into is one call.

    Raises InputError.
    """
    opaque: set[str] = set()
    while True:
        tracer = _Tracer(opaque)
        try:
            return tracer.trace(network)
        except Exception as error:  # whatever the network's own code raises on a symbolic value
            if not tracer.failed_in:
                raise InputError(
                    f"{type(network).__name__} cannot be traced, so it takes no exits: {error}. "
                    "Drop its exits; it then runs whole."
                ) from error
            opaque.add(tracer.failed_in)


def _modules_around(node: fx.Node) -> list[str]:
    """Paths of the modules whose forward made this call, outermost first."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def last_node(path: str, graph: fx.Graph, network: nn.Module) -> fx.Node:
    """The last call of the module at this path; raises InputError if there is none."""
    inside = [n for n in graph.nodes if path in _modules_around(n) and n.op != "get_attr"]
    if inside:
        last: fx.Node = inside[-1]
        return last
    known = [name for name, _ in network.named_modules() if name]
    if path not in known:
        outermost = ", ".join(name for name in known if "." not in name)
        raise InputError(f"exit {path!r}: no such module; the outermost are {outermost}")
    seen = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    around = [name for name in seen if path.startswith(f"{name}.")]
    if around:
        raise InputError(
            f"exit {path!r}: lies inside {around[0]!r}, which torch.fx cannot look into; choose "
            f"{around[0]!r} or a module after it"
        )
    raise InputError(f"exit {path!r}: this module is not used by the network's forward")


def _result(graph: fx.Graph) -> fx.Node:
    (output,) = (node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if not isinstance(result, fx.Node):
        raise InputError(
            f"the network returns {type(result).__name__}; wanted one tensor of logits. Wrap it in "
            "a factory that picks the logits."
        )
    return result


def _owners(graph: fx.Graph, ends: dict[fx.Node, str]) -> dict[fx.Node, fx.Node]:
    """For every call, the first end that needs it; parameters are read wherever they are used."""
    owner: dict[fx.Node, fx.Node] = {}
    for end in (node for node in graph.nodes if node in ends):
        at = [end]
        while at:
            node = at.pop()
            if node not in owner and node.op not in ("placeholder", "get_attr"):
                owner[node] = end
                at += [source for source in node.all_input_nodes if source not in ends]
    return owner


def _piece(
    network: nn.Module,
    graph: fx.Graph,
    end: fx.Node,
    ends: dict[fx.Node, str],
    owner: dict[fx.Node, fx.Node],
) -> Piece:
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    own = [node for node in graph.nodes if owner.get(node) is end]
    outside = {source for node in own for source in node.all_input_nodes} - set(own)
    given = [node for node in graph.nodes if node in outside and node.op != "get_attr"]
    for node in given:
        copies[node] = part.placeholder(node.name)
    for node in (node for node in graph.nodes if node in outside and node.op == "get_attr"):
        copies[node] = part.node_copy(node)
    for node in own:
        copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    needs = tuple(INPUT if node.op == "placeholder" else ends[node] for node in given)
    return Piece(ends[end], needs, fx.GraphModule(network, part))


def check_pieces(network: nn.Module, pieces: tuple[Piece, ...], sample: torch.Tensor) -> None:
    """Run a batch whole and in pieces; raise InputError unless both agree bit for bit.

    Every piece must make a tensor with one row per image, or survivors could not be picked from it.
    """
    for batch in (sample[:2], sample[:3]):
        made = {INPUT: batch}
        for piece in pieces:
            tensor = piece(*(made[need] for need in piece.needs))
            if not isinstance(tensor, torch.Tensor) or tensor.shape[:1] != batch.shape[:1]:
                found = getattr(tensor, "shape", type(tensor).__name__)
                raise InputError(
                    f"a cut at {piece.name or 'the end'!r} gives {tuple(found)}; wanted a tensor "
                    f"with one row for each of {len(batch)} images. Choose another module."
                )
            made[piece.name] = tensor
        if not torch.allclose(made[""], network(batch), rtol=0, atol=0, equal_nan=True):
            raise InputError(
                f"{type(network).__name__} computes something else in pieces than whole; it takes "
                "no exits. Drop them; it then runs whole."
            )
