"""When a shard is done: once the file that says so stands, which is written after all others.

Whoever does a shard a second time (a bundle run again, a worker thought dead, the next run after a
crash) finds the first one's files and lets them stand, so that a file and what is said of it agree.
"""

import io
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from policy.errors import InputError
from policy.manifest import written
from policy.rows import read_about
from policy.schema import parse_json
from transforms.commit import Output
from transforms.files import FoundFile, exists, open_file, read_bytes

ORIGIN = ("made_by", "input")
"""What decides the content of a shard's files, by the names under which each file says it."""

_STATISTICS = "a shard's statistics"

Says = dict[str, Any]
"""What a file says of itself, or a marker of its shard."""


def commit_shard(
    output: Output,
    marker: str,
    files: Mapping[str, bytes],
    says: Mapping[str, Any],
    times: Mapping[str, Any],
) -> Says:
    """Write the Parquet files of a shard and then `marker`, which says that it is done.

    `says` is what the files hold of themselves (see `read_about`), ORIGIN among it; `times`, which
    no file holds, go to the marker too. Returns what the marker says, with the length and the
    SHA-256 of each file as it stands.
    """
    standing = {name: _stand(output, name, content, says) for name, content in files.items()}
    (_, said), *_ = standing.values()
    sums = {}
    for name, (content, _) in standing.items():
        file = written(content)
        sums[name] = {"bytes": file.bytes, "sha256": file.sha256}
    statistics = {**said, "files": sums, **times}
    content = json.dumps(statistics, indent=2).encode()
    if not output.create(marker, content):
        known = read_marker(output, marker)
        if known and known["files"] == sums:
            return known
        output.check_ours()
        output.replace(marker, content)
    return statistics


def done_before(output: Output, marker: str, origin: Mapping[str, Any]) -> Says | None:
    """What the marker of a shard says, if the shard was made from the same and is all there."""
    known = read_marker(output, marker)
    if known is None or not same_origin(known, origin):
        return None
    there = all(exists(f"{output.path}/{name}") for name in known["files"])
    return known if there else None


def read_marker(output: Output, marker: str, listed: FoundFile | None = None) -> Says | None:
    """What a marker says, as it was `listed` or is now; None if it is damaged or none of ours."""
    try:
        content = marker_bytes(listed) if listed else output.read(marker, _STATISTICS)
        found = parse_json(content, marker)
    except InputError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def marker_bytes(listed: FoundFile) -> bytes:
    """All of a marker that was listed; in gs:// it is asked for once, as a generation stays."""
    if listed.generation:
        return _generation(listed)
    return read_bytes(listed.path, _STATISTICS)


@lru_cache(maxsize=100_000)  # a kilobyte or two each
def _generation(listed: FoundFile) -> bytes:
    with open_file(listed.path, listed.bytes, listed.generation) as file:
        return file.read()


def same_origin(says: Mapping[str, Any], origin: Mapping[str, Any]) -> bool:
    """Whether a file or marker was made from what we make it from."""
    return all(says.get(name) == origin[name] for name in ORIGIN)


def _stand(
    output: Output, name: str, content: bytes, says: Mapping[str, Any]
) -> tuple[bytes, Mapping[str, Any]]:
    """Write a file, or find that another made from the same stands; what stands, and says."""
    if output.create(name, content):
        return content, says
    found = output.read(name, "a file of the output")
    theirs = _whole(found)
    if theirs is not None and same_origin(theirs, says):
        return found, theirs
    output.check_ours()
    output.replace(name, content)
    return content, says


def _whole(content: bytes) -> Says | None:
    """What a Parquet file says of itself; None if not all of it can be read."""
    try:
        with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as parquet:
            for _ in parquet.iter_batches():
                pass
            return read_about(parquet.schema_arrow)
    except (pa.ArrowException, OSError, ValueError):
        return None
