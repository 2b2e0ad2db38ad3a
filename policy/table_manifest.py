"""The manifest of a table: the networks and shards that it holds, and where its files lie."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.files import exists, read_bytes
from policy.graph import StageGraph
from policy.manifest import WrittenFile
from policy.schema import MOST_BYTES, STRICT, from_json

MANIFEST = "manifest.json"

_MOST_BYTES = 20 * MOST_BYTES  # it names every file of the table


@dataclass(frozen=True, config=STRICT)
class TableNetwork:
    """One network of a table: its fingerprint, its answers, and the stages with features."""

    fingerprint: str
    answers: tuple[str, ...]
    features: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class TableManifest:
    """What a table holds; written last, so a table without one is unfinished.

    `networks` by name; `shards` gives the records of each shard. `topk` is the number of classes
    kept for every row, None for all. `inputs` says what each shard was made from, and `files` what
    is known of each file, by its path below the table (see `answers_path`, `features_path`).
    """

    version: Literal[1]
    graph: StageGraph
    class_names: tuple[str, ...]
    topk: int | None
    networks: dict[str, TableNetwork]
    shards: dict[str, int]
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, WrittenFile] = field(default_factory=dict)

    def where(self, path: str) -> str:
        """Where in the table the file of this path lies, which may be elsewhere for a while."""
        file = self.files.get(path)
        return file.at or path if file else path


def fingerprints_of(networks: Mapping[str, TableNetwork]) -> dict[str, str]:
    """Of each network, by its name."""
    return {name: network.fingerprint for name, network in networks.items()}


def answers_path(answer: str, shard: str) -> str:
    """Where in a table the rows of one answer for one shard are."""
    return f"answers/{answer}/{shard}.parquet"


def features_path(stage: str, shard: str) -> str:
    """Where in a table the pooled features of one stage for one shard are."""
    return f"features/{stage}/{shard}.parquet"


def marker_path(network: str, shard: str) -> str:
    """Where in a table it says that a network's files of one shard are all there."""
    return f"shards/{network}/{shard}.json"


def read_manifest(table: str) -> TableManifest:
    """Read TABLE/manifest.json, or say that there is no finished table."""
    path = f"{table}/{MANIFEST}"
    if not exists(path):
        raise InputError(
            f"{table}: no {MANIFEST}, so no finished table; run `adalabel extract` or `adalabel "
            "import` (again) first"
        )
    return from_json(TableManifest, read_bytes(path, "the manifest", _MOST_BYTES), path)
