"""Every stage of some networks, ready to run on one device."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from policy.answers import Answers
from policy.errors import InputError
from policy.graph import IMAGE, Stage, StageGraph
from policy.heads import Head
from transforms.answers_of import answers_of
from transforms.careful import Careful
from transforms.cut import INPUT, Piece, check_pieces, cut
from transforms.fold import fold
from transforms.fuse import fuse_pieces
from transforms.gpus import usable_device
from transforms.images import InputSpec
from transforms.networks import Network, class_names, decode_side, load_network
from transforms.networks_file import NetworksFile
from transforms.normalise import Normaliser
from transforms.probe import probe
from transforms.ready import Ready, Setting, check_precision, ready, takes_fused

DECODE = "decode"
"""The stage that every image goes through first: from encoded bytes to pixels."""


class Engine:
    """Networks cut into stages.

    `graph` prices them in GMAC per image, exactly; decoding and resizing cost none. `inputs` maps
    each input stage to what it makes of a decoded image; `trunks` maps each network to the stages
    whose pooled output its exits look at; `fingerprints` are by network. JPEGs are decoded to a
    shorter side of `decode_side` pixels at least (None: full size). `careful` runs batches.
    """

    def __init__(
        self,
        networks: NetworksFile,
        device: str,
        heads: Mapping[str, Head] | None = None,
        only: Collection[str] | None = None,
        compile_for: int = 0,
    ) -> None:
        """Load networks (`only` these, by name) and heads, by exit stage.

        `compile_for`: compile networks for batches of so many images; 0: do not.
        """
        self.device = usable_device(device)
        self.setting = Setting(self.device, compile_for)
        self.careful = Careful(str(self.device))
        self.class_names = class_names(networks)
        self.decode_side = decode_side(networks)
        self.heads = dict(heads or {})
        self.inputs: dict[str, InputSpec] = {}
        self.trunks: dict[str, tuple[str, ...]] = {}
        self.fingerprints: dict[str, str] = {}
        self._normalisers: dict[str, Normaliser] = {}
        self._modules: dict[str, Ready] = {}
        self._stages = [Stage(DECODE, 0.0, (IMAGE,))]
        for spec in networks.network:
            if only is None or spec.name in only:
                self._add(load_network(spec, networks, self.class_names))
        missing = sorted(set(only or ()) - self.fingerprints.keys())
        if missing:
            raise InputError(
                f"network {missing[0]!r}, which the policy was fitted for, is not in the networks "
                f"file; it has {', '.join(network.name for network in networks.network)}"
            )
        self.graph = StageGraph(tuple(self._stages), "gmac")
        unknown = [name for name in self.heads if name not in self.graph.answers]
        if unknown:
            raise InputError(f"no network has the exit {unknown[0]!r} that a head was fitted for")
        probe(self)

    def _add(self, network: Network) -> None:
        """Cut one network and add its stages to the graph."""
        name = network.spec.name
        try:
            pieces, gmacs = self._tried(network)
        except InputError as error:
            raise InputError(f"network {name!r}: {error}") from error
        except Exception as error:  # whatever the user's own network raises
            raise InputError(
                f"network {name!r} fails on images of {network.input.size}: "
                f"{type(error).__name__}: {error}"
            ) from error
        of_piece = {INPUT: self._input_stage(network.input)}
        for piece, gmac in zip(pieces, gmacs, strict=True):
            stage = f"{name}.{piece.name}" if piece.name else name
            needs = tuple(of_piece[need] for need in piece.needs)
            of_piece[piece.name] = stage
            self._stages.append(Stage(stage, gmac, needs, answers=not piece.name))
            self._modules[stage] = ready(piece, network.spec.precision, self.setting)
            head = self.heads.get(f"{stage}.exit")
            if head is not None:
                size = head.weight.size / 1e9
                self._stages.append(Stage(f"{stage}.exit", size, (stage,), answers=True))
        self.trunks[name] = tuple(of_piece[module] for module in network.spec.exits)
        self.fingerprints[name] = network.fingerprint

    def _tried(self, network: Network) -> tuple[tuple[Piece, ...], list[float]]:
        """The pieces of a network and their GMACs, run once on random images."""
        check_precision(network.spec.precision, self.device)
        with (
            torch.no_grad()
        ):  # weights made in inference mode would be refused by some convolutions
            random = torch.Generator().manual_seed(0)
            sample = torch.rand((3, 3, *network.input.size), generator=random)
            self._check_classes(network, sample[:1])
            whole = fold(network.module, network.spec.exits, sample)
            pieces = cut(whole, network.spec.exits)
            check_pieces(whole, pieces, sample)
            gmacs = _gmacs(whole, pieces, network.input)
            if takes_fused(network.spec.precision, self.setting):
                pieces = fuse_pieces(pieces, sample)
        return pieces, gmacs

    def _check_classes(self, network: Network, sample: torch.Tensor) -> None:
        result = network.module(sample)
        found = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        wanted = (1, len(self.class_names))
        if found != wanted:
            raise InputError(
                f"gives {found} for one image; wanted logits of shape {wanted}, one for each name "
                "of the class list. Wrap it in a factory that gives them."
            )

    def _input_stage(self, spec: InputSpec) -> str:
        """The stage that makes this input; networks that want the same share it."""
        digest = hashlib.sha256(repr(spec).encode()).hexdigest()[:8]
        stage = f"input.{spec.size[0]}x{spec.size[1]}.{digest}"
        if stage not in self.inputs:
            self._stages.append(Stage(stage, 0.0, (DECODE,)))
            self.inputs[stage] = spec
            self._normalisers[stage] = Normaliser(spec, self.device)
        return stage

    def input_batch(self, stage: str, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Normalised [n, 3, height, width] (channels last) of images [height, width, 3]."""
        return self._normalisers[stage](pixels)

    def run(self, stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run one stage on the tensors that earlier stages made."""
        tensors = (made[need] for need in self.graph.stage[stage].needs)
        result: torch.Tensor = self._modules[stage](*tensors)
        return result

    def answer(self, stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        """Run one answering stage: the k best classes (None: all) and the entropy."""
        if stage in self.heads:
            (trunk,) = self.graph.stage[stage].needs
            return self.heads[stage].answers(self.features(made[trunk]), k)
        return answers_of(self.run(stage, made), k)()

    def begin_answer(
        self, stage: str, made: Mapping[str, torch.Tensor], k: int | None
    ) -> Callable[[], Answers]:
        """Begin to run an answering stage; what is returned waits for its answers.

        A GPU works on it meanwhile. A CPU has no one else to do so, and has done it.
        """
        if self.device.type == "cuda" and stage not in self.heads:
            return answers_of(self.run(stage, made), k)
        answers = self.answer(stage, made, k)
        return lambda: answers

    @property
    def in_flight(self) -> int:
        """Batches to have begun while the answers of an earlier one are looked at."""
        return 1 if self.device.type == "cuda" else 0

    @staticmethod
    def features(tensor: torch.Tensor) -> NDArray[np.float16]:
        """Pooled [n, features] in float16, as tables hold them.

        The mean over positions of [n, channels, side, side], of [n, side, side, channels] (as in
        Swin: two equal sides, then another number) or of [n, tokens, channels].
        """
        match tensor.shape:
            case (_, height, width, channels) if height == width != channels:
                tensor = tensor.mean(dim=(1, 2))
            case (_, _, _, _):
                tensor = tensor.mean(dim=(2, 3))
            case (_, _, _):
                tensor = tensor.mean(dim=1)
        pooled: NDArray[np.float16] = tensor.flatten(1).half().cpu().numpy()
        return pooled


def _gmacs(network: nn.Module, pieces: Sequence[Piece], spec: InputSpec) -> list[float]:
    """Multiply-accumulates of each piece in 1e9 per image, counted on the meta device."""
    weights = {k: v.to("meta") for k, v in _tensors(network)}
    made = {INPUT: torch.empty((1, 3, *spec.size), device="meta")}
    counts = []
    for piece in pieces:
        own = {f"module.{name}": weights[name] for name, _ in _tensors(piece.module)}
        with FlopCounterMode(display=False) as counter:
            tensors = tuple(made[need] for need in piece.needs)
            made[piece.name] = torch.func.functional_call(piece, own, tensors)
        counts.append(counter.get_total_flops() / 2 / 1e9)
    return counts


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, tied ones under each of theirs."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
