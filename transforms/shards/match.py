"""From patterns to shards: which files they find, of which format, under which names."""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from policy.errors import InputError, shown
from transforms.shards import image_files, parquet, tar, tfrecord
from transforms.shards.patterns import matched
from transforms.shards.shard import ImageFile, Shard

_FORMATS = {
    extension: module for module in (tar, parquet, tfrecord) for extension in module.EXTENSIONS
}
_WILDCARDS = "*?["
_DOUBLE = ".tar.gz"
_NUMBERED = re.compile(r"(^|/)[^/.]+(\.tfrecords?)?-\d{5}-of-\d{5}$")
"""TensorFlow's names; a wrong guess fails at the first checksum, as a rejected record."""


def match_shards(patterns: Iterable[str]) -> tuple[Shard, ...]:
    """Find shards by path, glob or list file (.txt, one path or glob a line), sorted by path.

    A shard's name is its path below the part of the pattern that has no wildcard, without the
    extension. Plain image files are grouped into shards by folder. Raises InputError if a pattern
    is refused or matches nothing, a format is unknown, or two shards would have the same name.
    """
    found: dict[str, Shard] = {}
    images: dict[str, tuple[str, ImageFile]] = {}
    taken: set[str] = set()
    for pattern, file in matched(patterns):
        path = _everywhere(file.path)
        if path in taken:
            continue
        taken.add(path)
        if _extension(path) in image_files.EXTENSIONS:
            image = ImageFile(path, file.bytes, file.modified, generation=file.generation)
            images[path] = posixpath.dirname(_below(file.path, pattern)), image
        else:
            format_of(path)
            name = posixpath.normpath(_below(file.path, pattern).removesuffix(_suffix(path)))
            _add(found, Shard(name, path, file.bytes, file.modified, generation=file.generation))
    for shard in image_files.grouped(images.values()):
        _add(found, shard)
    if not found:
        raise InputError("no shards given; wanted paths, globs or list files in --input")
    return tuple(sorted(found.values(), key=lambda shard: (shard.path, shard.name)))


def format_of(path: str) -> ModuleType:
    """The module that reads this file; raises InputError."""
    extension = _extension(path)
    if extension not in _FORMATS:
        known = ", ".join([*_FORMATS, *image_files.EXTENSIONS])
        raise InputError(
            f"{shown(path)}: unknown shard format {shown(extension)!r}; known are {known}. For all "
            f"of a folder, give a glob in quotes: '{shown(path)}/*.tar'"
        )
    return _FORMATS[extension]


def _add(found: dict[str, Shard], shard: Shard) -> None:
    if posixpath.basename(shard.name).startswith("_") or shard.name.startswith("_"):
        raise InputError(
            f"{shown(shard.path)}: names that start with _ are kept for adalabel; rename the shard"
        )
    other = found.setdefault(shard.name, shard)
    if other is not shard:
        raise InputError(
            f"shards {shown(other.path)} and {shown(shard.path)} would both be named "
            f"{shown(shard.name)!r}; rename one, or if they lie in different folders, give one "
            "glob above both, so that the folder becomes part of the name"
        )


def _everywhere(path: str) -> str:
    """The path that names the file from any folder, so that a shard's identity does not change."""
    return path if "://" in path else str(Path(path).absolute())


def _below(path: str, pattern: str) -> str:
    """The path below the folder that the pattern names without wildcards."""
    fixed = pattern
    for wildcard in _WILDCARDS:
        fixed = fixed.split(wildcard, 1)[0]
    return path.removeprefix(posixpath.dirname(fixed)).lstrip("/")


def _suffix(path: str) -> str:
    """The extension as it is written; the number in a name of TensorFlow's is none."""
    if path.lower().endswith(_DOUBLE):
        return path[-len(_DOUBLE) :]
    if _NUMBERED.search(path):
        return ""
    return posixpath.splitext(path)[1]


def _extension(path: str) -> str:
    return ".tfrecord" if _NUMBERED.search(path) else _suffix(path).lower()
