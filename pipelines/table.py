"""What a table holds already, what it will hold, and what it turned out to hold."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError
from policy.graph import StageGraph
from policy.rows import OK, read_about
from policy.table import (
    MANIFEST,
    TableManifest,
    TableNetwork,
    answers_path,
    features_path,
    read_manifest,
)
from transforms.commit import existing
from transforms.stages import Engine


def known_manifest(table: str) -> TableManifest | None:
    """The table's manifest, or None where there is no table yet."""
    return read_manifest(table) if FileSystems.exists(f"{table}/{MANIFEST}") else None


def files(manifest: TableManifest, network: str, shard: str) -> list[str]:
    """The files, relative to the table, that one network makes of one shard."""
    made = manifest.networks[network]
    return [
        *(answers_path(answer, shard) for answer in made.answers),
        *(features_path(stage, shard) for stage in made.features),
    ]


def held_files(table: str) -> set[str]:
    """The Parquet files that the table already has, relative to it."""
    return {
        f"{folder}/{name}.parquet"
        for folder in ("answers", "features")
        for name in existing(f"{table}/{folder}", ".parquet")
    }


def extended(
    table: str, engine: Engine, records: Mapping[str, int], topk: int | None
) -> TableManifest:
    """The manifest the table will have once the engine has run over these shards.

    Raises InputError if the table was made differently, or if after the run some network would lack
    some shard.
    """
    networks = {
        name: TableNetwork(fingerprint, (name,), engine.trunks[name])
        for name, fingerprint in engine.fingerprints.items()
    }
    known = known_manifest(table)
    ours = TableManifest(1, engine.graph, engine.class_names, topk, networks, dict(records))
    if known is None:
        return ours
    _check_same_kind(table, known, ours)
    _check_no_gap(known, ours)
    return replace(
        ours,
        graph=merged(known.graph, ours.graph),
        networks=known.networks | ours.networks,
        shards=known.shards | ours.shards,
    )


def merged(graph: StageGraph, other: StageGraph) -> StageGraph:
    """Both graphs in one; of stages with the same name, the other's counts."""
    known = tuple(other.stage.get(stage.name, stage) for stage in graph.stages)
    new = tuple(stage for stage in other.stages if stage.name not in graph.stage)
    return replace(graph, stages=known + new)


def _check_same_kind(table: str, known: TableManifest, ours: TableManifest) -> None:
    for what, found, wanted in (
        ("class list", known.class_names, ours.class_names),
        ("--topk", known.topk, ours.topk),
        ("unit of costs", known.graph.unit, ours.graph.unit),
    ):
        if found != wanted:
            raise InputError(
                f"{table}: its {what} is {str(found)[:80]}, this run's is {str(wanted)[:80]}; "
                "choose another --output"
            )
    for name, network in ours.networks.items():
        before = known.networks.get(name)
        if before and before.fingerprint != network.fingerprint:
            raise InputError(
                f"{table}: holds answers of another network {name!r} (fingerprint "
                f"{before.fingerprint}, now {network.fingerprint}); rename the network or choose "
                "another --output"
            )


def _check_no_gap(known: TableManifest, ours: TableManifest) -> None:
    absent = known.networks.keys() - ours.networks.keys()
    new_shards = ours.shards.keys() - known.shards.keys()
    if absent and new_shards:
        raise InputError(
            f"the table has network {min(absent)!r}, which the networks file lacks, so shard "
            f"{min(new_shards)!r} would be without it; add the network, or choose another --output"
        )
    new = ours.networks.keys() - known.networks.keys()
    left = known.shards.keys() - ours.shards.keys()
    if new and left:
        raise InputError(
            f"the table has shard {min(left)!r}, which --input does not match, so it would be "
            f"without network {min(new)!r}; match all {len(known.shards)} shards of the table"
        )


def check_held(
    table: str, manifest: TableManifest, held: Collection[str], identities: Mapping[str, str]
) -> None:
    """Raise InputError if a file that the table already has was made differently.

    `identities` gives those of the shards of this run, see `Shard.identity`.
    """
    for shard in manifest.shards:
        for name in manifest.networks:
            for path in files(manifest, name, shard):
                if path in held:
                    _footer(table, path, _wanted(manifest, name, shard, identities))


def counted(
    table: str, manifest: TableManifest, identities: Mapping[str, str]
) -> tuple[TableManifest, dict[str, int], int]:
    """The manifest with the records counted in the files, those without an answer by reason, and
    the number of those without a label.

    A record that only some networks could not answer counts too. Raises InputError as `check_held`
    does, and where the files of a shard disagree.
    """
    shards: dict[str, int] = {}
    rejected = Counter[str]()
    unlabelled = 0
    for shard in manifest.shards:
        without, missing = Counter[str](), 0
        for name in manifest.networks:
            wanted = _wanted(manifest, name, shard, identities)
            for path in files(manifest, name, shard):
                rows, about = _footer(table, path, wanted)
                if shards.setdefault(shard, rows) != rows:
                    raise InputError(f"{table}/{path}: has {rows} rows, wanted {shards[shard]}")
                without |= Counter(about["statuses"])
                missing = max(missing, about.get("unlabelled", 0))
        del without[OK]
        rejected += without
        unlabelled += missing
    return replace(manifest, shards=shards), dict(rejected), unlabelled


def _wanted(
    manifest: TableManifest, network: str, shard: str, identities: Mapping[str, str]
) -> dict[str, object]:
    """What a file of the table must say of itself."""
    wanted: dict[str, object] = {
        "fingerprint": manifest.networks[network].fingerprint,
        "topk": manifest.topk,
    }
    return wanted | ({"input": identities[shard]} if shard in identities else {})


def _footer(table: str, path: str, wanted: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
    """Rows of one file of the table, and what it says of itself, checked against what it should."""
    try:
        with FileSystems.open(f"{table}/{path}", compression_type="uncompressed") as file:
            parquet = pq.ParquetFile(file)
            rows, about = parquet.metadata.num_rows, read_about(parquet.schema_arrow)
        about["statuses"] = dict(about["statuses"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{table}/{path}: not a file of a table, or damaged ({error}); delete it to make it "
            "again"
        ) from error
    for field, value in wanted.items():
        if field in about and about[field] != value:
            raise InputError(
                f"{table}/{path}: was made with {field} {about[field]}, this run has {value}; "
                "choose another --output, or delete the file to make it again"
            )
    return rows, about
