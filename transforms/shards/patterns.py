"""Paths, globs and list files as they were given, checked before a filesystem sees them."""

import re
from collections.abc import Iterable, Iterator

from policy.errors import InputError, Stopped, shown
from transforms import files
from transforms.files import FoundFile, read_bytes
from transforms.shards.limits import MAX_LIST_BYTES, MAX_NAME_BYTES

SCHEMES = ("gs", "s3", "hdfs", "azfs")
"""Of Beam's filesystems, those that a path may name; a path without a scheme is local."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def matched(patterns: Iterable[str]) -> Iterator[tuple[str, FoundFile]]:
    """Every file that is found, with the pattern that found it.

    Raises InputError if a pattern is refused, cannot be listed or matches nothing.
    """
    for pattern, source in _expand_lists(patterns):
        for file in _match(pattern, source):
            yield pattern, file


def _expand_lists(patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every pattern, and where it was given."""
    for pattern in patterns:
        source = f"--input {shown(pattern)}"
        checked = _checked(pattern, source)
        if not pattern.endswith(".txt"):
            yield checked, source
            continue
        for listed in _match(checked, source):
            yield from _lines(listed)


def _lines(listed: FoundFile) -> Iterator[tuple[str, str]]:
    """The patterns of a list file, a line each; lines may be empty."""
    if listed.bytes > MAX_LIST_BYTES:
        raise InputError(
            f"{shown(listed.path)}: {listed.bytes} bytes; a list of shards has at most "
            f"{MAX_LIST_BYTES}"
        )
    content = read_bytes(listed.path, "the list of shards")
    for number, line in enumerate(content.split(b"\n"), start=1):
        source = f"{shown(listed.path)}, line {number}"
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source}: not UTF-8, so this is no list of shards: {error}"
            ) from error
        if text:
            yield _checked(text, source), f"{source}: {shown(text)}"


def _checked(pattern: str, source: str) -> str:
    """The pattern, with its folder named: Beam would look for one without in a folder ""."""
    if len(pattern.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
        raise InputError(f"{source}: longer than {MAX_NAME_BYTES} bytes, so no path; wanted a path")
    control = _CONTROL.search(pattern)
    if control:
        raise InputError(
            f"{source}: control character {control[0]!a} in a path; use a glob (?) for it"
        )
    if pattern.startswith("|") or pattern.endswith("|"):
        raise InputError(f"{source}: commands are never run; wanted a path or a glob")
    found = _SCHEME.match(pattern)
    if found:
        _check_scheme(pattern, found[1].lower(), source)
    return pattern if "/" in pattern else f"./{pattern}"


def _check_scheme(pattern: str, scheme: str, source: str) -> None:
    known = ", ".join(f"{name}://" for name in SCHEMES)
    if scheme == "file":
        raise InputError(f"{source}: give a plain path, without file://")
    if scheme not in SCHEMES or not pattern[len(scheme) :].startswith("://"):
        raise InputError(
            f"{source}: {scheme}: is not read; wanted a local path (./{shown(pattern, 40)} if that "
            f"is a file's name), or {known}"
        )


def _match(pattern: str, source: str) -> list[FoundFile]:
    try:
        found = sorted(files.matched(pattern), key=lambda file: file.path)
    except Stopped:  # a bucket that does not answer
        raise
    except Exception as error:  # Beam wraps what the filesystem said; the user needs that text
        raise InputError(f"{source}: cannot be listed: {shown(error)}") from error
    if not found:
        raise InputError(f"{source}: matches no file; check the path and the quotes")
    return found
