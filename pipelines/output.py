"""An output from claim to manifest: what it holds, where a run writes, when the result changes.

With --mode overwrite or retry-failed the new result is built beside the old one, below _next. Once
it is whole, one new manifest that names the files there makes it the result; then the files get
their own places, the manifest says so, and what is not part of the result is removed. A run that
is killed on the way leaves the old result or the new one, and the next run does what is left.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pipelines.hold import check_place, held
from policy.errors import InputError
from policy.files import exists, read_bytes
from policy.manifest import LabelsManifest, WrittenFile, written
from policy.schema import from_json, parse_json, to_json
from policy.table_manifest import TableManifest
from transforms.at_once import at_once
from transforms.commit import RUN, Output, found_files
from transforms.done import marker_bytes
from transforms.watch import ALARM

_LOG = logging.getLogger("adalabel")

VERSION = "policy version"
"""What an output says of the version of a registry that its policy is, if it is one."""

Mode = Literal["resume", "overwrite", "retry-failed"]
NEXT = "_next"
LABELS_MANIFEST = "_manifest.json"
NIGHTS = {"made by": "adalabel nightly"}
RECEIPT = "_receipt.json"
_PUBLISHED = "_published"
_NOWHERE = "_none"

ManifestT = TypeVar("ManifestT", LabelsManifest, TableManifest)


@dataclass(frozen=True)
class Kind(Generic[ManifestT]):
    """A kind of output: what its manifest is called, what it holds, and which files are its own.

    `strays` names the files of this kind below a folder, whether the manifest has them or not.
    """

    manifest: str
    type: type[ManifestT]
    strays: Callable[[str], set[str]]


@dataclass(frozen=True)
class Session(Generic[ManifestT]):
    """A run's hold on an output: where it writes, and the manifest of the result that stands."""

    kind: Kind[ManifestT]
    mode: Mode
    output: Output
    known: ManifestT | None

    @property
    def place(self) -> Output:
        """The output itself, where the result ends up."""
        return replace(self.output, folder="")

    def publish(self, manifest: ManifestT, made: Collection[str]) -> None:
        """Make this the result; `made` names those of its files that are new, below _next."""
        if self.mode != "resume":
            staged = {
                name: replace(file, at=f"{NEXT}/{name}") if name in made else file
                for name, file in manifest.files.items()
            }
            _settle(self.kind, self.place, replace(manifest, files=staged))
        elif manifest != self.known:
            self.place.replace(self.kind.manifest, to_json(manifest).encode())


@contextmanager
def opened(
    root: str, mode: Mode, kind: Kind[ManifestT], made_by: Mapping[str, str] | None
) -> Iterator[Session[ManifestT]]:
    """Hold an output while the body runs.

    `made_by` is what must be the same for all of its content; None for what may go anywhere.

    What an earlier run left half done is finished or removed first. Raises OutputInUse if another
    run holds it, and InputError if it holds what was made by something else.
    """
    with held(root) as place:
        if made_by is not None:
            _refuse_nights(place)
        known = _settled(kind, place)
        output = place if mode == "resume" else replace(place, folder=NEXT)
        if made_by is not None:
            output = _guarded(output, mode, made_by)
        elif mode != "resume":
            place.delete_folder(NEXT)
        yield Session(kind, mode, output, known)


def looked_at(
    root: str, mode: Mode, kind: Kind[ManifestT], made_by: Mapping[str, str]
) -> Session[ManifestT]:
    """An output as `opened` would find it, held by nobody: only to look, also while a run goes on.

    Raises InputError if a run would be refused.
    """
    check_place(root)
    place = Output(root, "")
    _refuse_nights(place)
    if mode != "overwrite":
        check_made_by(root, (said_of(place) or {"made_by": made_by})["made_by"], made_by)
    output = place
    if mode != "resume":
        output = replace(place, folder=NEXT)
        if said_of(output) != {"mode": mode, "made_by": dict(made_by)}:
            output = replace(place, folder=_NOWHERE)  # a run would remove what is there
    return Session(kind, mode, output, known_manifest(root, kind))


def is_of_nights(place: Output) -> bool:
    """Whether a folder is that of `adalabel nightly`."""
    return (said_of(place) or {}).get("made_by") == NIGHTS


def _refuse_nights(place: Output) -> None:
    if is_of_nights(place):
        raise InputError(
            f"{place.root}: holds the labels of many nights, and only `adalabel nightly` writes "
            "there; choose another --output"
        )


def _guarded(output: Output, mode: Mode, made_by: Mapping[str, str]) -> Output:
    """Say what the output is made by, before anything else is there; refuse to mix."""
    place = replace(output, folder="")
    says: dict[str, Any] = {"mode": mode, "made_by": dict(made_by)}
    if mode != "overwrite":
        check_made_by(place.root, (said_of(place) or says)["made_by"], made_by)
    if mode != "resume" and said_of(output) != says:
        place.delete_folder(NEXT)  # of a run that was stopped, and of no use to this one
    output.create(RUN, json.dumps(says, indent=2).encode())
    return replace(output, says=output.read(RUN, "what the folder says of itself"))


def said_of(output: Output) -> dict[str, Any] | None:
    """What an output says of itself, or what is being made for it; None where it says nothing."""
    path = f"{output.path}/{RUN}"
    if not exists(path):
        return None
    found = parse_json(output.read(RUN, "what the folder says of itself"), path)
    if not isinstance(found, dict) or not isinstance(found.get("made_by"), dict):
        raise InputError(
            f"{path}: does not say what the folder was made by; if it is adalabel's, from before "
            "version 0.2, choose another --output"
        )
    return found


def marker_sums(output: Output, paths: Sequence[str]) -> dict[str, WrittenFile]:
    """What a manifest says of these markers of an output."""
    if not paths:
        return {}
    there = found_files(output.path, ".json")
    contents = at_once(lambda path: marker_bytes(there[path]), paths)
    return {path: written(content) for path, content in zip(paths, contents, strict=True)}


def known_manifest(root: str, kind: Kind[ManifestT]) -> ManifestT | None:
    """The manifest of an output, or None where there is no result yet."""
    path = f"{root}/{kind.manifest}"
    return from_json(kind.type, read_bytes(path, "the manifest"), path) if exists(path) else None


def check_made_by(root: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise InputError, naming what differs, if results of two makings would meet in one output."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{root}: was made with {name} {found.get(name)}, this run has {wanted.get(name)}; "
                f"{_hint(found, wanted)}choose another --output, or replace all of it with --mode "
                "overwrite"
            )


def _hint(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What to do where only the registry's CURRENT has moved since the output was begun."""
    before, now = found.get(VERSION), wanted.get(VERSION)
    if before is None or now is None or before == now:
        return ""
    return (
        f"it was begun with version {before} of a registry, and --policy names version {now}: "
        "CURRENT has moved, or another was named. To go on with the one it was begun with, give "
        f"--policy REGISTRY@{before.partition(' ')[0]}; or "
    )


def _settled(kind: Kind[ManifestT], place: Output) -> ManifestT | None:
    """What stands; finishes the move of a result that became the result but was not moved yet."""
    known = known_manifest(place.root, kind)
    if known is not None and any(file.at for file in known.files.values()):
        _LOG.info("%s: finishing what a run that was stopped had left to do", place.root)
        return _settle(kind, place, known)
    if exists(f"{place.root}/{NEXT}/{_PUBLISHED}"):
        place.delete_folder(NEXT)
    return known


def _settle(kind: Kind[ManifestT], place: Output, staged: ManifestT) -> ManifestT:
    """Flip to a result below _next, move it to its own places, and remove what is not part of it.

    Each step leaves a whole result behind, and all of it may be done again.
    """
    place.replace(kind.manifest, to_json(staged).encode())
    place.replace(f"{NEXT}/{_PUBLISHED}", b"")
    moved = {name: file.at for name, file in staged.files.items() if file.at}
    for name in (RUN, ALARM, RECEIPT):
        if exists(f"{place.root}/{NEXT}/{name}"):
            moved[name] = f"{NEXT}/{name}"
    at_once(lambda name: place.copy(moved[name], name), moved)
    at_once(place.delete, _dropped(kind, place, staged) - moved.keys())
    settled = replace(staged, files={n: replace(f, at=None) for n, f in staged.files.items()})
    place.replace(kind.manifest, to_json(settled).encode())
    place.delete_folder(NEXT)
    return settled


def _dropped(kind: Kind[ManifestT], place: Output, staged: ManifestT) -> set[str]:
    """The files that are not part of the result any more: all others, once it was overwritten."""
    said = said_of(replace(place, folder=NEXT))
    overwritten = said is not None and said["mode"] == "overwrite"
    return (kind.strays(place.root) | {ALARM}) - staged.files.keys() if overwritten else set()
