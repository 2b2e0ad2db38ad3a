"""adalabel extract: run every network over shards of images, and keep all answers in a table."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.options import MachineOptions
from pipelines.progress import progress
from pipelines.table import counted, extended, files, held_files
from policy.errors import InputError
from policy.schema import to_json
from policy.table import MANIFEST
from transforms.commit import existing, write_once
from transforms.extract import Extract
from transforms.networks_file import read_networks
from transforms.shards import Shard, count_records, match_shards
from transforms.stages import Engine

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(MachineOptions):
    """Run every network over labelled shards; keep answers and pooled features in a table."""

    networks: str
    """The networks file (TOML)."""
    input: tuple[str, ...]
    """Shards: paths, globs in quotes, or list files ending in .txt."""
    output: str
    """The table's folder; what it already holds is kept."""
    topk: int = 0
    """Classes kept for every image; 0: all (features of single classes need all)."""

    def __post_init__(self) -> None:
        """Refuse to keep less than nothing."""
        super().__post_init__()
        if self.topk < 0:
            raise InputError(f"--topk {self.topk}: wanted 0 (all) or more")


@dataclass(frozen=True)
class ExtractReceipt:
    """What a run did. `rejected` counts rows without an answer by reason."""

    output: str
    shards: int
    records: int
    networks_run: tuple[str, ...]
    rejected: dict[str, int]
    seconds: float

    def text(self) -> str:
        """For people."""
        ran = ", ".join(self.networks_run) or "nothing (all done before)"
        bad = ", ".join(f"{count} {why}" for why, count in self.rejected.items()) or "none"
        return (
            f"{self.output}: {self.records} records of {self.shards} shards; ran {ran} in "
            f"{self.seconds:.1f} s; rejected: {bad}"
        )


def run(options: ExtractOptions, beam_args: Sequence[str]) -> ExtractReceipt:
    """Extract what the table lacks, then write its manifest."""
    networks = read_networks(options.networks)
    shards = match_shards(options.input)
    engine = Engine(networks, options.device)
    records = {shard.name: count_records(shard) for shard in shards}
    _LOG.info("%d shards, %d records", len(shards), sum(records.values()))
    manifest = extended(options.output, engine, records, options.topk or None)
    held = held_files(options.output)
    lacking = {
        name: {shard for shard in records if not held.issuperset(files(manifest, name, shard))}
        for name in engine.fingerprints
    }
    only = tuple(name for name, missing in lacking.items() if missing)
    todo = [shard for shard in shards if any(shard.name in lacking[name] for name in only)]
    start = time.monotonic()
    if todo:
        transform = Extract(networks, only, options.output, options.topk or None, options.worker)
        _run_pipeline(todo, transform, records, beam_args)
    manifest, rejected = counted(
        options.output, manifest, {shard.name: shard.bytes for shard in shards}
    )
    write_once(options.output, MANIFEST, to_json(manifest).encode())
    return ExtractReceipt(
        options.output,
        len(shards),
        sum(records.values()),
        only,
        rejected,
        time.monotonic() - start,
    )


def _run_pipeline(
    todo: Sequence[Shard],
    transform: Extract,
    records: dict[str, int],
    beam_args: Sequence[str],
) -> None:
    watched = f"{transform.table}/answers/{transform.only[-1]}"
    waiting = {shard.name: records[shard.name] for shard in todo}
    before = existing(watched, ".parquet")
    with (
        progress("extract", waiting, lambda: existing(watched, ".parquet") - before),
        beam.Pipeline(options=PipelineOptions(list(beam_args))) as pipeline,
    ):
        _ = pipeline | "Shards" >> beam.Create(list(todo)) | transform
