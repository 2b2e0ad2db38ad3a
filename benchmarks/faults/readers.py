"""What those see who read an output: through its manifest, by its markers, or all of its files."""

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFESTS = ("_manifest.json", "manifest.json")
LEFTOVERS = ("_next", "_attempts", "_lock")
_DECIDED = ("key", "label", "trail", "classes", "status")

Result = dict[str, list[tuple[Any, ...]]]
"""What was decided of each record, by file."""


class TornError(Exception):
    """A reader saw what was neither the old nor the new result."""


def manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of an output, if it has one."""
    for name in MANIFESTS:
        if (output / name).exists():
            found: dict[str, Any] = json.loads((output / name).read_text())
            return found
    return None


def result(output: Path) -> Result | None:
    """What an output's manifest names, each file checked against it; None without a manifest."""
    found = manifest(output)
    if found is None:
        return None
    rows = {}
    for name, file in found["files"].items():
        path = output / (file.get("at") or name)
        if not path.exists():
            raise TornError(f"{path} is in the manifest, but not there")
        content = path.read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            raise TornError(f"{path} is not what the manifest says")
        if name.endswith(".parquet"):
            rows[name] = _decided(content, str(path))
    return rows


def check_files(output: Path) -> None:
    """Raise TornError unless every Parquet file that anybody can find is whole."""
    for path in output.rglob("*.parquet"):
        if "_attempts" not in path.parts:
            _decided(path.read_bytes(), str(path))


def check_markers(output: Path) -> None:
    """Raise TornError unless each shard that is marked as done has the files it is said to have.

    Not while a new result takes its place; the manifest says where that is.
    """
    found = manifest(output)
    if found and any(file.get("at") for file in found["files"].values()):
        return
    for path in output.rglob("*.json"):
        inner = path.relative_to(output).parts
        if inner[0].startswith("_") or inner[0] in MANIFESTS:
            continue
        for name, file in json.loads(path.read_text())["files"].items():
            if not (output / name).exists():
                raise TornError(f"{path} names {name}, which is not there")
            if hashlib.sha256((output / name).read_bytes()).hexdigest() != file["sha256"]:
                raise TornError(f"{path} names {name}, which is another file")


def lost_and_twice(found: Result, wanted: Result) -> tuple[int, int]:
    """How many records of `wanted` have no row, and how many have more than one."""
    lost = twice = 0
    for name, rows in wanted.items():
        ours = Counter(row[0] for row in found.get(name, []))
        theirs = Counter(row[0] for row in rows)
        lost += (theirs - ours).total()
        twice += (ours - theirs).total()
    return lost, twice


def leftovers(output: Path) -> list[str]:
    """What a run that ended must not leave."""
    return [name for name in LEFTOVERS if (output / name).exists()]


def _decided(content: bytes, path: str) -> list[tuple[Any, ...]]:
    try:
        table = pq.read_table(
            io.BytesIO(content), page_checksum_verification=True, use_threads=False
        )
    except (pa.ArrowException, OSError) as error:
        raise TornError(f"{path} cannot be read: {error}") from error
    names = [name for name in _DECIDED if name in table.column_names]
    return [tuple(str(row[name]) for name in names) for row in table.select(names).to_pylist()]
