"""adalabel verify: check that an output, labels or a table, is still what its manifest says."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from pipelines.labels import LABELS
from pipelines.made_by import is_of_nights
from pipelines.night_book import FOLDER, read_nights
from pipelines.options import CommandOptions
from pipelines.output import known_manifest
from pipelines.table import TABLE, files
from policy.errors import Damaged, InputError, shown
from policy.files import exists, read_bytes
from policy.manifest import LabelsManifest, NightsManifest, WrittenFile, written
from policy.rows import ANSWERS_SCHEMA, FEATURES_SCHEMA, LABELS_SCHEMA
from policy.schema import parse_json
from policy.table_manifest import TableManifest
from transforms.commit import RUN, Output
from transforms.cores import usable_cores

_MOST_SHOWN = 10
_TRIES = 3
_SCHEMAS = {"answers": ANSWERS_SCHEMA, "features": FEATURES_SCHEMA}


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(CommandOptions):
    """Check every file of an output against its manifest: length, SHA-256, page checksums, rows."""

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """The folder of labels, of the labels of nights, or of a table."""


@dataclass(frozen=True)
class VerifyReceipt:
    """What was checked and found right. `strays` are files that the manifest does not name."""

    output: str
    files: int
    bytes: int
    shards: int
    records: int
    strays: tuple[str, ...]

    def text(self) -> str:
        """For people."""
        line = (
            f"{self.output}: {self.files} files of {self.shards} shards with {self.records} "
            f"records, {self.bytes / 1e6:.1f} MB, are what the manifest says"
        )
        if not self.strays:
            return line
        names = ", ".join(shown(name, 100) for name in self.strays[:_MOST_SHOWN])
        return f"{line}\n  {len(self.strays)} files are not part of the result: {names}"


def run(options: VerifyOptions) -> VerifyReceipt:
    """Check all files; raises Damaged, naming the first of them, if some are not as they were.

    A result that is replaced meanwhile is checked again.
    """
    root = options.output.rstrip("/")
    for _ in range(_TRIES):
        manifest = _manifest(root)
        problems = _all_problems(root, manifest)
        if not problems or _manifest(root) == manifest:
            break
    if problems:
        raise Damaged(
            f"{root}: {len(problems)} problems: {'; '.join(problems[:_MOST_SHOWN])}. "
            + _remedy(manifest)
        )
    kind = LABELS if isinstance(manifest, LabelsManifest) else TABLE
    return VerifyReceipt(
        output=root,
        files=len(manifest.files),
        bytes=sum(file.bytes for file in manifest.files.values()),
        shards=len(manifest.shards),
        records=sum(manifest.shards.values()),
        strays=tuple(sorted(kind.strays(root) - manifest.files.keys())),
    )


def _remedy(manifest: LabelsManifest | TableManifest) -> str:
    if isinstance(manifest, NightsManifest):
        return "Touch these shards: the next night takes them for rewritten, and labels them again."
    return (
        "Delete the damaged files and run the command that made them again, or use --mode "
        "overwrite."
    )


def _manifest(root: str) -> LabelsManifest | TableManifest:
    manifest = (
        read_nights(root)
        if is_of_nights(Output(root, ""))
        else known_manifest(root, LABELS) or known_manifest(root, TABLE)
    )
    if manifest is None:
        begun = exists(f"{root}/{RUN}")
        raise InputError(
            f"{root}: holds no manifest ({LABELS.manifest} of labels, {TABLE.manifest} of a "
            "table), so no finished result"
            + (", only what a run has begun: run the same command again" if begun else "")
        )
    return manifest


def _all_problems(root: str, manifest: LabelsManifest | TableManifest) -> list[str]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(
            lambda file: list(_problems(root, manifest, *file)), manifest.files.items()
        )
        return [problem for some in found for problem in some] + list(_missing(manifest))


def _missing(manifest: LabelsManifest | TableManifest) -> Iterator[str]:
    """Files that the shards of a manifest must have, and that it does not name."""
    if isinstance(manifest, NightsManifest):
        yield from _nights_mixed(manifest)
    for shard in manifest.shards:
        if isinstance(manifest, LabelsManifest):
            wanted = [f"{shard}.parquet", f"{shard}.json"]
        else:
            wanted = [path for name in manifest.networks for path in files(manifest, name, shard)]
        for name in wanted:
            if name not in manifest.files:
                yield f"{shown(name)}: the manifest does not say what is in it"


def _nights_mixed(manifest: NightsManifest) -> Iterator[str]:
    """Shards whose files are not of the one night that the manifest says they are of."""
    for shard in manifest.shards:
        night = manifest.night_of.get(shard)
        names = (f"{shard}.parquet", f"{shard}.json")
        files = [manifest.files[name] for name in names if name in manifest.files]
        if night not in manifest.nights or any(
            not (file.at or "").startswith(f"{FOLDER}/{night}/") for file in files
        ):
            yield f"{shown(shard)}: its files are not all of its night {shown(night)}"


def _problems(
    root: str, manifest: LabelsManifest | TableManifest, name: str, file: WrittenFile
) -> Iterator[str]:
    """What is wrong with one file."""
    try:
        content = read_bytes(f"{root}/{file.at or name}", "a file of the manifest")
    except InputError as error:
        yield shown(error)
        return
    found = written(content)
    if found.bytes != file.bytes:
        yield f"{shown(name)}: {found.bytes} bytes, wanted {file.bytes}"
    elif found.sha256 != file.sha256:
        yield f"{shown(name)}: SHA-256 {found.sha256[:16]}…, wanted {file.sha256[:16]}…"
    elif name.endswith(".parquet"):
        yield from _rows(manifest, name, content)
    else:
        yield from _marker(manifest, name, content)


def _rows(manifest: LabelsManifest | TableManifest, name: str, content: bytes) -> Iterator[str]:
    """What is wrong with the rows of a file that is as it was written."""
    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield f"{shown(name)}: cannot be read: {shown(error)}"
        return
    schema, shard = LABELS_SCHEMA, name.removesuffix(".parquet")
    if isinstance(manifest, TableManifest):
        kind, _, rest = shard.partition("/")
        schema, shard = _SCHEMAS[kind], rest.partition("/")[2]
    if not table.schema.remove_metadata().equals(schema):
        yield f"{shown(name)}: has other columns than adalabel writes"
    if len(table) != manifest.shards.get(shard):
        yield f"{shown(name)}: {len(table)} rows for {manifest.shards.get(shard)} records"


def _marker(manifest: LabelsManifest | TableManifest, name: str, content: bytes) -> Iterator[str]:
    """Where what marks a shard as done and the manifest differ."""
    try:
        says = parse_json(content, name)
        files = says["files"] if isinstance(says, dict) else {}
        if not files:
            yield f"{shown(name)}: does not say what its shard holds"
        for path, sums in files.items():
            file = manifest.files.get(path)
            if file is None or (file.bytes, file.sha256) != (sums["bytes"], sums["sha256"]):
                yield f"{shown(name)}: speaks of another {shown(path)} than the manifest"
    except (InputError, KeyError, TypeError, AttributeError) as error:
        yield f"{shown(name)}: does not say what its shard holds: {shown(error)}"
