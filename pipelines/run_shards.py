"""What extract and classify have in common: count shards, then run a transform over them."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError

import pipelines.mortal_workers  # noqa: F401 - takes the place of Beam's own
from pipelines.attempts import HANDED_OVER
from pipelines.progress import progress
from policy.errors import (
    Alarm,
    HandedOver,
    InputError,
    OutputInUse,
    Stopped,
    TooManyBad,
    Unavailable,
    shown,
)
from transforms.at_once import at_once
from transforms.careful import DeviceLost
from transforms.commit import Output, existing
from transforms.shards import Shard, count_records
from transforms.shards.listed import listed, read_list

_LOG = logging.getLogger("adalabel")

SHARDS = "shards.jsonl"
"""The list of a run's shards, among the files that only its workers read."""

_KINDS = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (InputError, Stopped, TooManyBad, OutputInUse, Unavailable, Alarm, DeviceLost)
}
_OF_SERVICE = (DataflowRuntimeException, GoogleAPIError, GoogleAuthError)
_FAILED = (InputError, Stopped, RuntimeError, *_OF_SERVICE)
_STEP = re.compile(r" \[while running .*\]$")
_RAISED = re.compile(
    rf"^(?P<kind>{'|'.join(map(re.escape, _KINDS))}): (?P<said>.*?)( \[while running .*)?$",
    re.MULTILINE,
)


def count_all(shards: Sequence[Shard]) -> dict[str, int]:
    """The records of each shard, by name; says how many there are in all."""
    counts = at_once(count_records, shards)
    records = {shard.name: count for shard, count in zip(shards, counts, strict=True)}
    size = sum(shard.bytes for shard in shards) / 1e6
    _LOG.info("found %d shards, %d records, %.1f MB", len(shards), sum(records.values()), size)
    return records


def run_shards(
    transform: beam.PTransform[Any, Any],
    records: Mapping[Shard, int],
    output: Output,
    watched: tuple[str, str],
    beam_args: Sequence[str],
) -> None:
    """Run a transform of shards over those of `records`, showing progress by their counts.

    `output` keeps their list while the run lasts. `watched` is the folder and the extension of the
    files that mark shards as done.
    """
    folder, extension = watched
    names = {shard.name: count for shard, count in records.items()}
    before = existing(folder, extension)
    path = output.keep(SHARDS, listed(records))
    try:
        with (
            progress(transform.label, names, lambda: existing(folder, extension) - before),
            pipeline_of(transform, path, beam_args) as pipeline,
        ):
            pass  # it runs as it is left
    except _FAILED as error:
        raise as_raised(error) from error
    if pipeline.options.view_as(StandardOptions).no_wait_until_finish:
        output.keep(HANDED_OVER, b"")
        raise HandedOver(
            f"{output.path}: the job was handed over, and is not waited for. When it has ended, "
            "run the same command without --no_wait_until_finish: it does what is missing and "
            "writes the manifest. A run before that does the same work a second time."
        )


def pipeline_of(
    transform: beam.PTransform[Any, Any], path: str, beam_args: Sequence[str]
) -> beam.Pipeline:
    """A transform of shards over those of the list at `path`, which a worker reads; not yet run.

    Its size does not grow with them: Dataflow takes no more than 10 MB. Raises InputError on flags
    that Beam refuses.
    """
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(list(beam_args)))
    except ValueError as error:
        raise InputError(f"what comes after -- is refused by Beam: {shown(error)}") from error
    path_given = pipeline | "List" >> beam.Create([path], reshuffle=False)
    _ = path_given | "Shards" >> beam.FlatMap(read_list) | transform
    return pipeline


def as_raised(error: Exception) -> Exception:
    """What a worker raised for the user.

    Beam adds the step's name to it, and hands on what other processes raised as a traceback's text.
    What a service says for itself is of no worker.
    """
    if isinstance(error, (InputError, Stopped)):
        return type(error)(_STEP.sub("", str(error.args[0])))
    found = list(_RAISED.finditer(str(error)))
    if found:
        return _KINDS[found[-1]["kind"]](found[-1]["said"])
    if isinstance(error, _OF_SERVICE) and "Traceback" not in str(error):
        return Unavailable(
            f"{type(error).__name__}: {shown(error)}; what is done stays done. See the job's log, "
            "and run the same command again."
        )
    return error
