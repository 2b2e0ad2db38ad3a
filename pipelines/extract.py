"""adalabel extract: run every network over shards of images, and keep all answers in a table."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.options import RunOptions
from pipelines.run_shards import count_all, run_shards
from pipelines.table import check_held, counted, extended, files, held_files
from pipelines.words import listed
from policy.errors import InputError
from policy.schema import to_json
from policy.table import MANIFEST, TableManifest
from transforms.commit import write_once
from transforms.extract import Extract
from transforms.networks_file import NetworksFile, read_networks
from transforms.shards import match_shards
from transforms.stages import Engine


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(RunOptions):
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
    """What a run did. `rejected` counts rows without an answer by reason and
    `unlabelled` those without a label, in the whole table.
    """

    output: str
    shards: int
    records: int
    networks_run: tuple[str, ...]
    rejected: dict[str, int]
    unlabelled: int
    seconds: float

    def text(self) -> str:
        """For people."""
        ran = ", ".join(self.networks_run) or "nothing (all done before)"
        return (
            f"{self.output}: {self.records} records of {self.shards} shards; ran {ran} in "
            f"{self.seconds:.1f} s; rejected: {listed(self.rejected)}"
            + (f" (see status and error in {self.output}/answers)" if self.rejected else "")
            + (f"; {self.unlabelled} without a label, useless to fit" if self.unlabelled else "")
        )


def run(options: ExtractOptions, beam_args: Sequence[str]) -> ExtractReceipt:
    """Extract what the table lacks, then write its manifest."""
    networks = read_networks(options.networks)
    shards = match_shards(options.input)
    records = count_all(shards)
    identities = {shard.name: shard.identity for shard in shards}
    manifest, ours = _planned(options, networks, records)
    held = held_files(options.output)
    check_held(options.output, manifest, held, identities)
    lacking = {
        name: {shard for shard in records if not held.issuperset(files(manifest, name, shard))}
        for name in ours
    }
    only = tuple(name for name, missing in lacking.items() if missing)
    todo = {s: records[s.name] for s in shards if any(s.name in lacking[name] for name in only)}
    start = time.monotonic()
    if todo:
        transform = Extract(networks, only, options.output, options.topk or None, options.worker)
        watched = (f"{options.output}/answers/{only[-1]}", ".parquet")
        run_shards(transform, todo, watched, beam_args)
    manifest, rejected, unlabelled = counted(options.output, manifest, identities)
    write_once(options.output, MANIFEST, to_json(manifest).encode())
    total = sum(manifest.shards.values())
    if sum(rejected.values()) >= total:
        raise InputError(
            f"{options.output}: none of {total} records could be used ({listed(rejected)}); the "
            f"columns status and error in {options.output}/answers say why"
        )
    return ExtractReceipt(
        output=options.output,
        shards=len(shards),
        records=sum(manifest.shards[name] for name in records),
        networks_run=only,
        rejected=rejected,
        unlabelled=unlabelled,
        seconds=time.monotonic() - start,
    )


def _planned(
    options: ExtractOptions, networks: NetworksFile, records: Mapping[str, int]
) -> tuple[TableManifest, tuple[str, ...]]:
    """The manifest the table will have, and the networks of this run.

    Loads every network once, to refuse what does not work before any worker starts; they are let
    go of again here.
    """
    engine = Engine(networks, options.device)
    manifest = extended(options.output, engine, records, options.topk or None)
    return manifest, tuple(engine.fingerprints)
