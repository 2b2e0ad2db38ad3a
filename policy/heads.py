"""Linear heads: how an early exit answers from the pooled features of a trunk stage."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from policy.answers import Answers, answers_from_logits
from policy.errors import InputError


@dataclass(frozen=True)
class Head:
    """A linear classifier on pooled features: weight [classes, features], bias [classes]."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together and numbers that are none."""
        is_matrix = self.weight.ndim == 2  # noqa: PLR2004 - classes and features
        if not is_matrix or self.bias.shape != self.weight.shape[:1]:
            raise InputError(
                f"head: wanted weight [classes, features] and bias [classes]; found "
                f"{self.weight.shape} and {self.bias.shape}"
            )
        if {self.weight.dtype, self.bias.dtype} != {np.dtype(np.float32)}:
            raise InputError(
                f"head: wanted float32; found {self.weight.dtype} and {self.bias.dtype}"
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise InputError("head: weight or bias holds NaN or infinity; fit it again")

    def answers(self, features: NDArray[np.float16], k: int | None) -> Answers:
        """Answers from pooled features [n, features] as the table stores them (float16)."""
        if features.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"head: fitted on {self.weight.shape[1]} features, given {features.shape[1]}"
            )
        with np.errstate(invalid="ignore", over="ignore"):  # 0 x inf: the row is not finite then
            logits = features.astype(np.float32) @ self.weight.T + self.bias
        logits[~np.isfinite(features).all(axis=1)] = np.nan  # whatever the weights make of infinity
        return answers_from_logits(logits, k)


def heads_to_bytes(heads: Mapping[str, Head]) -> bytes:
    """The heads by exit stage, as safetensors."""
    tensors = {f"{name}.weight": np.ascontiguousarray(head.weight) for name, head in heads.items()}
    tensors |= {f"{name}.bias": np.ascontiguousarray(head.bias) for name, head in heads.items()}
    return save(tensors)


def heads_from_bytes(content: bytes, where: str) -> dict[str, Head]:
    """Read what `heads_to_bytes` wrote; `where` names the source in errors."""
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InputError(f"{where}: not a safetensors file: {error}") from error
    except KeyError as error:  # how safetensors says that NumPy has no such type
        raise InputError(f"{where}: numbers of type {error}; wanted float32") from error
    names = sorted({name.rpartition(".")[0] for name in tensors})
    missing = [n for n in names if not {f"{n}.weight", f"{n}.bias"} <= tensors.keys()]
    if missing:
        raise InputError(f"{where}: head {missing[0]!r} lacks its weight or its bias")
    return {n: Head(tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in names}
