"""The photographs' networks as plain torch modules, as they come and tuned."""

import importlib
import sys
import tomllib
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.peers.job import Job
from benchmarks.photographs import SPECS, Spec

SPEC = {spec.name: spec for spec in SPECS}


class Tuned(nn.Module):
    """A network with folded batch norms, in channels-last, that takes images as they are decoded.

    uint8 [n, height, width, 3] -> float32 logits [n, classes]. Normalising a whole batch that
    way makes it channels-last without a copy.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = folded(network).to(memory_format=torch.channels_last)
        self.autocasts = precision == "bfloat16"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        return self.logits(images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1))

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of normalised, channels-last [n, 3, height, width]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocasts):
            return cast("torch.Tensor", self.network(inputs)).float()


def loaded(data: str, name: str) -> nn.Module:
    """A network as its file makes it, in eval mode; takes normalised [n, 3, side, side]."""
    spec = SPEC[name]
    folder = Path(data) / "networks"
    sys.path[:0] = [] if str(folder) in sys.path else [str(folder)]
    network = _made(spec)
    network.load_state_dict(load_file(folder / f"{spec.weights}.safetensors"))
    return network.eval().requires_grad_(requires_grad=False)


def tuned(data: str, name: str, precision: str) -> Tuned:
    """The same network, tuned."""
    return Tuned(loaded(data, name), precision)


def network_of(job: Job) -> nn.Module:
    """The network of a job on all images, tuned or as it comes."""
    if job.tuned:
        return tuned(job.data, job.network, job.precision)
    return loaded(job.data, job.network)


def folded(network: nn.Module) -> nn.Module:
    """Put each batch norm that directly follows a convolution into its weights, in place."""
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for number in range(len(block) - 1):
            first, second = block[number], block[number + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                block[number], block[number + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return network


def _made(spec: Spec) -> nn.Module:
    arguments = tomllib.loads(f"kwargs = {spec.kwargs}")["kwargs"]
    factory = getattr(importlib.import_module(spec.module), spec.module)
    return cast("nn.Module", factory(**arguments))
