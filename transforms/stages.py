"""Every stage of some networks, ready to run on one device."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError
from policy.graph import IMAGE, Stage, StageGraph
from policy.heads import Head
from transforms.answers_of import answers_of
from transforms.careful import Careful
from transforms.cut import INPUT, Piece, check_pieces, cut
from transforms.fold import fold
from transforms.fuse import fuse_pieces
from transforms.gmacs import gmacs
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

    `unpriced` is their graph with nothing but costs missing (see `graph`). `inputs` maps each input
    stage to what it makes of a decoded image; `trunks` maps each network to the stages whose pooled
    output its exits look at; `fingerprints` are by network. JPEGs are decoded to a shorter side of
    `decode_side` pixels at least (None: full size). `careful` runs batches.
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
        self._pieces: dict[str, tuple[InputSpec, Mapping[str, Piece]]] = {}
        for spec in networks.network:
            if only is None or spec.name in only:
                self._add(load_network(spec, networks, self.class_names))
        missing = sorted(set(only or ()) - self.fingerprints.keys())
        if missing:
            raise InputError(
                f"network {missing[0]!r}, which the policy was fitted for, is not in the networks "
                f"file; it has {', '.join(network.name for network in networks.network)}"
            )
        self.unpriced = StageGraph(tuple(self._stages), "gmac")
        unknown = [name for name in self.heads if name not in self.unpriced.answers]
        if unknown:
            raise InputError(f"no network has the exit {unknown[0]!r} that a head was fitted for")
        probe(self)

    def _add(self, network: Network) -> None:
        """Cut one network and add its stages to the graph."""
        name = network.spec.name
        try:
            pieces = self._tried(network)
        except InputError as error:
            raise InputError(f"network {name!r}: {error}") from error
        except Exception as error:  # whatever the user's own network raises
            raise InputError(
                f"network {name!r} fails on images of {network.input.size}: "
                f"{type(error).__name__}: {error}"
            ) from error
        of_piece = {INPUT: self._input_stage(network.input)}
        for piece in pieces:
            stage = f"{name}.{piece.name}" if piece.name else name
            needs = tuple(of_piece[need] for need in piece.needs)
            of_piece[piece.name] = stage
            self._stages.append(Stage(stage, 0.0, needs, answers=not piece.name))
            self._modules[stage] = ready(piece, network.spec.precision, self.setting)
            if f"{stage}.exit" in self.heads:
                self._stages.append(Stage(f"{stage}.exit", 0.0, (stage,), answers=True))
        self._pieces[name] = network.input, {of_piece[piece.name]: piece for piece in pieces}
        self.trunks[name] = tuple(of_piece[module] for module in network.spec.exits)
        self.fingerprints[name] = network.fingerprint

    @cached_property
    def graph(self) -> StageGraph:
        """The stages priced in GMAC per image, exactly; decoding and resizing cost none.

        Counted when first asked for: that imports torch's compiler, a second and a half which those
        who only run stages do without. Raises InputError on what runs on no meta device.
        """
        costs = dict.fromkeys(self.unpriced.stage, 0.0)
        costs |= {stage: head.weight.size / 1e9 for stage, head in self.heads.items()}
        for name, (spec, pieces) in self._pieces.items():
            try:
                costs |= zip(pieces, gmacs(tuple(pieces.values()), spec), strict=True)
            except Exception as error:  # whatever the user's own network raises
                raise InputError(
                    f"network {name!r} fails on the meta device, where its operations are counted: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return self.unpriced.with_costs(costs, "gmac")

    def _tried(self, network: Network) -> tuple[Piece, ...]:
        """The pieces of a network, run once on random images."""
        check_precision(network.spec.precision, self.device)
        with (
            torch.no_grad()
        ):  # weights made in inference mode would be refused by some convolutions
            random = torch.Generator().manual_seed(0)
            sample = 2 * torch.rand((3, 3, *network.input.size), generator=random) - 1
            self._check_classes(network, sample[:1])
            whole = fold(network.module, network.spec.exits, sample)
            pieces = cut(whole, network.spec.exits)
            check_pieces(whole, pieces, sample)
            if takes_fused(network.spec.precision, self.setting):
                pieces = fuse_pieces(pieces, sample)
        return pieces

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
        tensors = (made[need] for need in self.unpriced.stage[stage].needs)
        result: torch.Tensor = self._modules[stage](*tensors)
        return result

    def answer(self, stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        """Run one answering stage: the k best classes (None: all) and the entropy."""
        if stage in self.heads:
            (trunk,) = self.unpriced.stage[stage].needs
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
