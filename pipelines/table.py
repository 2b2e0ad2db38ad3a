"""What a table holds already, and what it will hold."""

from collections.abc import Mapping
from dataclasses import replace

from pipelines.output import Kind
from policy.errors import InputError
from policy.fingerprints import DECODED_OTHERWISE
from policy.graph import StageGraph
from policy.table_manifest import MANIFEST, TableManifest, TableNetwork, answers_path, features_path
from transforms.commit import existing
from transforms.stages import Engine

PARQUET = ".parquet"


def _strays(folder: str) -> set[str]:
    """The files of a table below a folder, whatever its manifest says."""
    return {
        f"{kind}/{name}{extension}"
        for kind, extension in (("answers", PARQUET), ("features", PARQUET), ("shards", ".json"))
        for name in existing(f"{folder}/{kind}", extension)
    }


TABLE = Kind(MANIFEST, TableManifest, _strays)


def files(manifest: TableManifest, network: str, shard: str) -> list[str]:
    """The files, relative to the table, that one network makes of one shard."""
    made = manifest.networks[network]
    return [
        *(answers_path(answer, shard) for answer in made.answers),
        *(features_path(stage, shard) for stage in made.features),
    ]


def held_files(table: str) -> set[str]:
    """The Parquet files that the table already has, relative to it."""
    return {path for path in _strays(table) if path.endswith(PARQUET)}


def extended(
    table: str,
    known: TableManifest | None,
    engine: Engine,
    records: Mapping[str, int],
    topk: int | None,
) -> TableManifest:
    """The manifest the table will have once the engine has run over these shards.

    `known` is the one it has now, whose `files` it still has. Raises InputError if the table was
    made differently, or if after the run some network would lack some shard.
    """
    networks = {
        name: TableNetwork(fingerprint, (name,), engine.trunks[name])
        for name, fingerprint in engine.fingerprints.items()
    }
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
        inputs=known.inputs,
        files=known.files,
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
                f"another --output. {DECODED_OTHERWISE}"
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
