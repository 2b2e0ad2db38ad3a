"""What shards hold, written down once, so that a later loss is seen: bytes, records, SHA-256."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from policy.errors import InputError, shown
from policy.schema import from_json
from transforms.files import read_bytes
from transforms.shards.read import read_records, sha256_of
from transforms.shards.record import CONTAINER
from transforms.shards.shard import Promise, Shard

_SHA256_DIGITS = 64


@dataclass(frozen=True)
class ShardEntry:
    """A shard as it was: `path` is for people, the shard's name is what counts."""

    path: str
    bytes: int
    records: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what no shard can be."""
        if self.bytes < 0 or self.records < 0:
            raise InputError(f"{self.bytes} bytes, {self.records} records: wanted none below 0")
        if len(self.sha256) != _SHA256_DIGITS or set(self.sha256) - set("0123456789abcdef"):
            raise InputError(
                f"sha256 {shown(self.sha256, _SHA256_DIGITS)!r}: wanted {_SHA256_DIGITS} "
                "hexadecimal digits in lower case"
            )


@dataclass(frozen=True)
class ShardManifest:
    """Every shard of a corpus by name."""

    version: Literal[1]
    shards: Mapping[str, ShardEntry]


def read_shard_manifest(path: str) -> ShardManifest:
    """Read a manifest that `adalabel manifest` wrote; raises InputError."""
    return from_json(ShardManifest, read_bytes(path, "the shard manifest"), shown(path))


def entry_of(shard: Shard) -> ShardEntry:
    """Read a shard, to write down what it holds.

    Raises InputError if it is damaged already: a manifest would promise the damage.
    """
    records = 0
    for record in read_records(replace(shard, promise=None)):
        records += 1
        if record.status == CONTAINER:
            raise InputError(
                f"{shown(shard.path)}: is damaged already, so there is nothing to promise of it: "
                f"{record.error}. Bring back a whole one, or leave it out."
            )
    return ShardEntry(shard.path, shard.bytes, records, sha256_of(shard))


def with_promises(
    shards: Iterable[Shard], manifest: ShardManifest, where: str
) -> tuple[Shard, ...]:
    """The shards, each with what the manifest (of the file `where`) promises of it.

    Raises InputError if a shard is missing, is not in the manifest, or has another size. Contents
    are checked when a worker reads the shard.
    """
    found = {shard.name: shard for shard in shards}
    missing = sorted(manifest.shards.keys() - found.keys())
    if missing:
        raise InputError(
            f"shard {shown(missing[0])!r} of {shown(where)} is not among those of --input "
            f"({len(missing)} missing); give the --input that the manifest was made with, or make "
            "a manifest of what you give"
        )
    return tuple(_with_promise(shard, manifest, where) for shard in found.values())


def _with_promise(shard: Shard, manifest: ShardManifest, where: str) -> Shard:
    entry = manifest.shards.get(shard.name)
    remedy = "bring back the shard, or make the manifest again with: adalabel manifest"
    if entry is None:
        raise InputError(f"shard {shown(shard.name)!r} is not in {shown(where)}; {remedy}")
    if entry.bytes != shard.bytes:
        raise InputError(
            f"shard {shown(shard.name)!r} has {shard.bytes} bytes, {shown(where)} says "
            f"{entry.bytes}; {remedy}"
        )
    return replace(shard, promise=Promise(entry.records, entry.sha256))
