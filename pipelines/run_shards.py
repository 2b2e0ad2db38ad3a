"""What extract and classify have in common: count shards, then run a transform over them."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

import pipelines.mortal_workers  # noqa: F401 - takes the place of Beam's own
from pipelines.progress import progress
from transforms.commit import existing
from transforms.failures import reasons_told
from transforms.shards import Shard, count_records

_LOG = logging.getLogger("adalabel")

_READERS = 16


def count_all(shards: Sequence[Shard]) -> dict[str, int]:
    """The records of each shard, by name; says how many there are in all."""
    with ThreadPoolExecutor(_READERS) as pool:
        counts = pool.map(count_records, shards)
        records = {shard.name: count for shard, count in zip(shards, counts, strict=True)}
    size = sum(shard.bytes for shard in shards) / 1e6
    _LOG.info("found %d shards, %d records, %.1f MB", len(shards), sum(records.values()), size)
    return records


def run_shards(
    transform: beam.PTransform[Any, Any],
    records: Mapping[Shard, int],
    watched: tuple[str, str],
    beam_args: Sequence[str],
) -> None:
    """Run a transform of shards over those of `records`, showing progress by their counts.

    `watched` is the folder and the extension of the files that mark shards as done.
    """
    folder, extension = watched
    names = {shard.name: count for shard, count in records.items()}
    before = existing(folder, extension)
    with (
        progress(transform.label, names, lambda: existing(folder, extension) - before),
        reasons_told(),
        beam.Pipeline(options=PipelineOptions(list(beam_args))) as pipeline,
    ):
        _ = pipeline | "Shards" >> beam.Create(list(records)) | transform
