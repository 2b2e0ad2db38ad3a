"""The policy bundle: a folder with policy.json and, where exits were fitted, heads.safetensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.heads import Head, heads_from_bytes, heads_to_bytes
from policy.losses import Metric, Objective
from policy.rules import Policy
from policy.schema import STRICT, from_json, to_json

POLICY = "policy.json"
HEADS = "heads.safetensors"


@dataclass(frozen=True, config=STRICT)
class Evidence:
    """How a policy came to be, and what it did on images it was not fitted on.

    `fitted` and `chosen` count the images of each part; `cost` (mean per image), `regret` (mean,
    see losses.regret) and `full_cost` were measured on the chosen part. `promise` is what was
    asked for, as text.
    """

    method: str
    metric: Metric
    objective: Objective
    promise: str
    data_digest: str
    seed: int
    fitted: int
    chosen: int
    cost: float
    full_cost: float
    regret: float
    versions: dict[str, str]


@dataclass(frozen=True, config=STRICT)
class _PolicyFile:
    """policy.json. `fingerprints` names, for each answer used, the network it was fitted for."""

    version: Literal[1]
    policy: Policy
    class_names: tuple[str, ...]
    fingerprints: dict[str, str]
    evidence: Evidence | None


@plain_dataclass(frozen=True)
class Bundle:
    """A policy with everything that running it needs to know; `heads` by exit stage."""

    policy: Policy
    class_names: tuple[str, ...]
    fingerprints: dict[str, str]
    evidence: Evidence | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of everything in the bundle that decides labels: all but the evidence."""
        decisive = _PolicyFile(1, self.policy, self.class_names, self.fingerprints, None)
        content = hashlib.sha256(to_json(decisive).encode())
        content.update(heads_to_bytes(self.heads))
        return content.hexdigest()[:16]


def write_bundle(folder: str, bundle: Bundle) -> None:
    """Write a bundle into a folder that is made where it is missing; policy.json comes last."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / HEADS).unlink(missing_ok=True)  # of a bundle that was here before
    if bundle.heads:
        (path / HEADS).write_bytes(heads_to_bytes(bundle.heads))
    content = _PolicyFile(
        1, bundle.policy, bundle.class_names, bundle.fingerprints, bundle.evidence
    )
    (path / POLICY).write_text(to_json(content), encoding="utf-8")


def read_bundle(folder: str) -> Bundle:
    """Read a bundle; raises InputError on anything that is not exactly one."""
    path = Path(folder)
    if not (path / POLICY).is_file():
        raise InputError(f"{folder}: no {POLICY} there; make one with `adalabel fit --policy`")
    content = from_json(_PolicyFile, (path / POLICY).read_bytes(), f"{folder}/{POLICY}")
    heads = path / HEADS
    return Bundle(
        policy=content.policy,
        class_names=content.class_names,
        fingerprints=content.fingerprints,
        evidence=content.evidence,
        heads=heads_from_bytes(heads.read_bytes(), str(heads)) if heads.is_file() else {},
    )
