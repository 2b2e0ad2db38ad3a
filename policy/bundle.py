"""The policy bundle: a folder with policy.json and, where exits were fitted, heads.safetensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.certify import Certificate
from policy.costs import Calibration
from policy.errors import InputError
from policy.files import delete, exists, read_bytes, write_bytes
from policy.heads import Head, heads_from_bytes, heads_to_bytes
from policy.losses import Metric, Objective
from policy.mixture import Mixture, Routing
from policy.offers import Offer
from policy.reference import Reference
from policy.rules import Policy
from policy.schema import MOST_BYTES, STRICT, from_json, to_json

POLICY = "policy.json"
HEADS = "heads.safetensors"
REPORT = "report.html"


@dataclass(frozen=True, config=STRICT)
class FittedOn:
    """What a policy was fitted from: a digest of what each shard of the table was made from, by
    shard, and one of all options and costs.
    """

    shards: dict[str, str]
    settings: str


@dataclass(frozen=True, config=STRICT)
class Evidence:
    """How a policy came to be, and what it did on images it was not fitted on.

    `parts` counts the images of each part of the table. `cost` (mean per image), `regret` (mean,
    see losses.regret) and `exits` (share of images by the answer that labelled them) were measured
    on the part `measured_on`. `full` is the answer that the policy is measured against, and
    `full_cost` what it costs. `promise` is what was asked for, as text; `certificate` is None where
    no proof was asked for. `reference` is what a run is audited against. `stages` is the share of
    the images that each stage ran for, `offers` are other policies that were to choose from,
    `calibration` says what the costs were measured on, and `fitted_on` what was seen. Older bundles
    have none of these.
    """

    method: str
    metric: Metric
    objective: Objective
    promise: str
    certificate: Certificate | None
    data_digest: str
    seed: int
    parts: dict[str, int]
    measured_on: str
    full: str
    exits: dict[str, float]
    cost: float
    full_cost: float
    regret: float
    versions: dict[str, str]
    reference: Reference | None = None
    stages: dict[str, float] = field(default_factory=dict)
    offers: tuple[Offer, ...] = ()
    calibration: Calibration | None = None
    fitted_on: FittedOn | None = None


@dataclass(frozen=True, config=STRICT)
class _Other:
    """The dearer policy of a mixture, the share of images that follow it, and the hash's seed."""

    policy: Policy
    share: float
    seed: int


@dataclass(frozen=True, config=STRICT)
class _PolicyFile:
    """policy.json. `fingerprints` are those of the networks used; `heads` is the file's SHA-256.

    `mixed_with` makes the policy the cheaper one of a mixture.
    """

    version: Literal[1]
    policy: Policy
    mixed_with: _Other | None
    class_names: tuple[str, ...]
    fingerprints: dict[str, str]
    heads: str | None
    evidence: Evidence | None


@plain_dataclass(frozen=True)
class Bundle:
    """A policy with everything that running it needs to know; `heads` by exit stage."""

    policy: Routing
    class_names: tuple[str, ...]
    fingerprints: dict[str, str]
    evidence: Evidence | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of everything in the bundle that decides labels: all but the evidence."""
        return _sha256(to_json(replace(_file_of(self), evidence=None)).encode())[:16]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_of(bundle: Bundle) -> _PolicyFile:
    heads = _sha256(heads_to_bytes(bundle.heads)) if bundle.heads else None
    policy, other = bundle.policy.arms[0], None
    if isinstance(bundle.policy, Mixture):
        other = _Other(bundle.policy.dear, bundle.policy.share, bundle.policy.seed)
    return _PolicyFile(
        1, policy, other, bundle.class_names, bundle.fingerprints, heads, bundle.evidence
    )


def write_bundle(folder: str, bundle: Bundle) -> None:
    """Write a bundle into a folder that is made where it is missing.

    policy.json comes last and names the heads it goes with, so that heads of another bundle, left
    there by a crash, are noticed when it is read.
    """
    if bundle.heads:
        write_bytes(f"{folder}/{HEADS}", heads_to_bytes(bundle.heads))
    write_bytes(f"{folder}/{POLICY}", to_json(_file_of(bundle)).encode())
    if not bundle.heads:
        delete(f"{folder}/{HEADS}")


def read_bundle(folder: str) -> Bundle:
    """Read a bundle; raises InputError on anything that is not exactly one."""
    return bundle_of(read_files(folder), folder)


def read_files(folder: str) -> dict[str, bytes]:
    """The files of a bundle that decide labels, by name; raises InputError without a policy."""
    path = f"{folder}/{POLICY}"
    if not exists(path):
        raise InputError(f"{folder}: no {POLICY} there; make one with `adalabel fit --policy`")
    files = {POLICY: read_bytes(path, "the policy", MOST_BYTES)}
    if _parsed(files[POLICY], folder).heads is not None:
        files[HEADS] = read_bytes(f"{folder}/{HEADS}", "the exits' heads")
    return files


def bundle_of(files: Mapping[str, bytes], folder: str) -> Bundle:
    """A bundle from the content of its files; raises InputError on anything that is not one."""
    found = _parsed(files[POLICY], folder)
    policy: Routing = found.policy
    if found.mixed_with is not None:
        other = found.mixed_with
        policy = Mixture(found.policy, other.policy, other.share, other.seed)
    heads: dict[str, Head] = {}
    if found.heads is not None:
        content = files.get(HEADS, b"")
        if _sha256(content) != found.heads:
            raise InputError(
                f"{folder}/{HEADS}: does not belong to {POLICY} beside it (SHA-256 "
                f"{_sha256(content)[:16]}, wanted {found.heads[:16]}); fit again"
            )
        heads = heads_from_bytes(content, f"{folder}/{HEADS}")
    return Bundle(policy, found.class_names, found.fingerprints, found.evidence, heads)


def _parsed(content: bytes, folder: str) -> _PolicyFile:
    return from_json(_PolicyFile, content, f"{folder}/{POLICY}")
