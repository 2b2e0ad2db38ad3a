"""Shards of images: which match, how many records they hold, and the records themselves.

A format is a module with `EXTENSIONS`, `count` and `read`; adding one means adding it to _FORMATS.
Paths go through Beam's filesystems, so gs:// and every other filesystem Beam knows work alike.
"""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError
from transforms.files import read_text
from transforms.shards import parquet, tar
from transforms.shards.record import Record
from transforms.shards.source import ReadFailed, open_shard

__all__ = ["ReadFailed", "Record", "Shard", "count_records", "match_shards", "read_records"]

_FORMATS = {extension: module for module in (tar, parquet) for extension in module.EXTENSIONS}
_WILDCARDS = "*?["


@dataclass(frozen=True)
class Shard:
    """One file of records. `name` is unique in a run and names the shard's outputs and keys.

    `bytes` and `modified` (seconds since 1970, 0 where unknown) tell a shard from one that was put
    in its place.
    """

    name: str
    path: str
    bytes: int
    modified: float

    @property
    def identity(self) -> str:
        """What must not change between the runs into one output."""
        return f"{self.path}, {self.bytes} bytes, modified {self.modified:.3f}"


def match_shards(patterns: Iterable[str]) -> tuple[Shard, ...]:
    """Find shards by path, glob or list file (.txt, one path or glob a line), sorted by path.

    A shard's name is its path below the part of the pattern that has no wildcard, without the
    extension. Raises InputError if a pattern matches nothing, a format is unknown, or two shards
    would have the same name.
    """
    found: dict[str, Shard] = {}
    taken: set[str] = set()
    for pattern, source in _expand_lists(patterns):
        for file in _match(pattern, source):
            path = file.path
            _format(path)
            if path in taken:
                continue
            taken.add(path)
            modified = file.last_updated_in_seconds or 0.0
            shard = Shard(_name(path, pattern), path, file.size_in_bytes, modified)
            other = found.setdefault(shard.name, shard)
            if other.path != path:
                raise InputError(
                    f"shards {other.path} and {path} would both be named {shard.name!r}; give one "
                    "glob above both folders (so that the folder becomes part of the name), or "
                    "rename one"
                )
    if not found:
        raise InputError("no shards given; wanted paths, globs or list files in --input")
    return tuple(sorted(found.values(), key=lambda shard: shard.path))


def count_records(shard: Shard) -> int:
    """The records of a shard, without reading its images."""
    with open_shard(shard.path) as file:
        return int(_format(shard.path).count(file))


def read_records(shard: Shard) -> Iterator[Record]:
    """The records of a shard in order, keys made unique across shards as <shard>/<member>.

    A member key seen again in the shard gives a record rejected as "duplicate". What cannot be read
    of a damaged container gives one last record rejected as "container".
    """
    seen: set[str] = set()
    with open_shard(shard.path) as file:
        for record in _format(shard.path).read(file):
            named = replace(record, key=f"{shard.name}/{record.key}")
            if named.key in seen:
                named = named.rejected("duplicate", "this key came before in the same shard")
            seen.add(named.key)
            yield named


def _expand_lists(patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every pattern, and where it was given."""
    for pattern in patterns:
        source = f"--input {pattern}"
        if pattern.endswith(".txt"):
            for listed in _match(_in_folder(pattern), source):
                lines = read_text(listed.path, "the list of shards").splitlines()
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield _in_folder(line.strip()), f"{listed.path}, line {number}: {line}"
        else:
            yield _in_folder(pattern), source


def _in_folder(pattern: str) -> str:
    """Name the folder of a pattern without one, which Beam would look for in a folder ""."""
    return pattern if "/" in pattern else f"./{pattern}"


def _match(pattern: str, source: str) -> list[FileMetadata]:
    try:
        (result,) = FileSystems.match([pattern])
    except Exception as error:  # Beam wraps what the filesystem said; the user needs that text
        raise InputError(f"{source}: cannot be listed: {error}") from error
    found = sorted(result.metadata_list, key=lambda file: file.path)
    if not found:
        raise InputError(f"{source}: matches no file; check the path and the quotes")
    return found


def _name(path: str, pattern: str) -> str:
    fixed = pattern
    for wildcard in _WILDCARDS:
        fixed = fixed.split(wildcard, 1)[0]
    folder = posixpath.dirname(fixed)
    name = posixpath.splitext(path.removeprefix(folder).lstrip("/"))[0]
    if name.startswith("_"):
        raise InputError(f"{path}: names that start with _ are kept for adalabel; rename the shard")
    return name


def _format(path: str) -> ModuleType:
    extension = posixpath.splitext(path)[1].lower()
    if extension not in _FORMATS:
        raise InputError(
            f"{path}: unknown shard format {extension!r}; known are {', '.join(_FORMATS)}. For all "
            f"of a folder, give a glob in quotes: '{path}/*.tar'"
        )
    return _FORMATS[extension]
