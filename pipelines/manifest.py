"""adalabel manifest: write down what shards hold, so that a later loss is seen."""

import logging
from dataclasses import dataclass
from typing import Annotated

import tyro

from pipelines.options import CommandOptions
from policy.files import write_bytes
from policy.schema import to_json
from transforms.at_once import at_once
from transforms.shards import match_shards
from transforms.shards.shard_manifest import ShardManifest, entry_of

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class ManifestOptions(CommandOptions):
    """Write the bytes, the records and the SHA-256 of every shard into one file."""

    input: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")]
    """Shards: paths, globs in quotes, or list files (.txt)."""
    output: str
    """Where to write the shard manifest (JSON), for --shard-manifest."""


@dataclass(frozen=True)
class ManifestReceipt:
    """What was written down."""

    output: str
    shards: int
    records: int
    bytes: int

    def text(self) -> str:
        """For people."""
        size = f"{self.bytes / 1e6:.1f} MB"
        return f"{self.output}: {self.shards} shards, {self.records} records, {size}"


def run(options: ManifestOptions) -> ManifestReceipt:
    """Read every shard once, and write what they hold."""
    shards = match_shards(options.input)
    _LOG.info("reading %d shards", len(shards))
    entries = dict(zip((s.name for s in shards), at_once(entry_of, shards), strict=True))
    write_bytes(options.output, to_json(ShardManifest(1, entries)).encode())
    records = sum(entry.records for entry in entries.values())
    size = sum(entry.bytes for entry in entries.values())
    return ManifestReceipt(options.output, len(entries), records, size)
