"""A folder of labels: which shards are done there, which are to be done, and its manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.accounting import has_failed
from pipelines.output import LABELS_MANIFEST, Kind, Session, marker_sums
from pipelines.words import changed
from policy.errors import InputError
from policy.manifest import LabelsManifest, WrittenFile
from policy.rows import read_about
from policy.table_manifest import MANIFEST
from transforms.at_once import at_once
from transforms.commit import RUN, Output, existing, found_files
from transforms.done import read_marker, same_origin
from transforms.files import open_file
from transforms.shards import Shard

Statistics = dict[str, Any]


def _strays(folder: str) -> set[str]:
    """The files of labels below a folder; what others keep there is not ours to remove."""
    own = Output(folder, "")
    others = tuple(
        f"{name}/" for mark in (RUN, MANIFEST) for name in existing(folder, f"/{mark}")
    )  # outputs of their own below this one
    markers, rows = (
        [name for name in existing(folder, extension) if not name.startswith(("_", *others))]
        for extension in (".json", ".parquet")
    )
    return {f"{name}.json" for name in markers if read_marker(own, f"{name}.json")} | {
        f"{name}.parquet" for name in rows if _is_ours(f"{folder}/{name}.parquet")
    }


def _is_ours(path: str) -> bool:
    try:
        with open_file(path) as file:
            return "made_by" in read_about(pq.read_schema(file))
    except (pa.ArrowException, OSError, ValueError):
        return False


LABELS = Kind(LABELS_MANIFEST, LabelsManifest, _strays)


@dataclass(frozen=True)
class Plan:
    """What a run over these shards has to do: `old` are done and stay, `to_do` are labelled.

    `new` are those of a result in the making that an earlier run of the same kind has done.
    """

    session: Session[LabelsManifest]
    made_by: Mapping[str, str]
    shards: tuple[Shard, ...]
    old: Mapping[str, Statistics]
    new: Mapping[str, Statistics]

    @classmethod
    def of(
        cls,
        session: Session[LabelsManifest],
        records: Mapping[Shard, int],
        made_by: Mapping[str, str],
    ) -> "Plan":
        """Look at what is there of these shards, which hold so many records each.

        Raises InputError if one has changed since it was labelled.
        """
        shards = tuple(records)
        old, outdated = done_and_outdated(session.place, records, made_by)
        if session.mode == "resume":
            _check_current(session.place, outdated, records)
            return cls(session, made_by, shards, old, {})
        new, _ = _done(session.output, shards, made_by)
        if session.mode == "overwrite":
            old = {}
        kept = {name: found for name, found in old.items() if not has_failed(found["statuses"])}
        return cls(session, made_by, shards, kept, new)

    @property
    def to_do(self) -> tuple[Shard, ...]:
        """The shards to label."""
        done = self.old.keys() | self.new.keys()
        return tuple(shard for shard in self.shards if shard.name not in done)

    @property
    def unpublished(self) -> set[str]:
        """The shards that an earlier run has labelled, and was killed before it said so."""
        if self.session.mode != "resume":
            return set()
        return self.old.keys() - (self.session.known.shards.keys() if self.session.known else ())

    def statistics(self) -> dict[str, Statistics]:
        """The statistics of all shards that are done by now, in the order of the shards."""
        found = {**self.old, **self._made()}
        return {shard.name: found[shard.name] for shard in self.shards if shard.name in found}

    def _made(self) -> dict[str, Statistics]:
        """The statistics of the shards that are done where this run writes."""
        return _done(self.session.output, self.shards, self.made_by)[0]

    def publish(self) -> None:
        """Make what is done the result."""
        made = self._made()
        names = {path for found in made.values() for path in found["files"]}
        self.session.publish(self._manifest(made), names | {f"{name}.json" for name in made})

    def _manifest(self, made: Mapping[str, Statistics]) -> LabelsManifest:
        """The manifest of the result: of these shards, and unless overwritten, of those before."""
        known = None if self.session.mode == "overwrite" else self.session.known
        files = dict(known.files) if known else {}
        shards, inputs = (dict(known.shards), dict(known.inputs)) if known else ({}, {})
        for name, found in {**self.old, **made}.items():
            shards[name], inputs[name] = found["records"], found["input"]
            files |= {path: WrittenFile(**file) for path, file in found["files"].items()}
        files |= marker_sums(self.session.output, [f"{name}.json" for name in made])
        kept = [f"{name}.json" for name in self.old if name not in made]
        files |= marker_sums(self.session.place, kept)
        return LabelsManifest(1, dict(self.made_by), shards, inputs, dict(sorted(files.items())))


def done_and_outdated(
    output: Output, records: Mapping[Shard, int], made_by: Mapping[str, str]
) -> tuple[dict[str, Statistics], list[str]]:
    """As `_done`, where a shard is outdated also if it promises more or less records by now."""
    old, outdated = _done(output, tuple(records), made_by)
    for shard, count in records.items():
        if shard.name in old and old[shard.name]["records"] != count:
            outdated.append(shard.name)
            del old[shard.name]
    return old, outdated


def _done(
    output: Output, shards: Sequence[Shard], made_by: Mapping[str, str]
) -> tuple[dict[str, Statistics], list[str]]:
    """The statistics of those of these shards that are done, by name; and those that are outdated.

    A shard is outdated if it was labelled, but from something else than what is there now.
    """
    there = found_files(output.path)
    ready = [s for s in shards if {f"{s.name}.json", f"{s.name}.parquet"} <= there.keys()]
    names = [f"{shard.name}.json" for shard in ready]
    markers = at_once(lambda name: read_marker(output, name, there[name]), names)
    done, outdated = {}, []
    for shard, marker in zip(ready, markers, strict=True):
        if marker and same_origin(marker, {"made_by": dict(made_by), "input": shard.identity}):
            done[shard.name] = marker
        elif marker:
            outdated.append(shard.name)
    return done, outdated


def _check_current(output: Output, outdated: Sequence[str], records: Mapping[Shard, int]) -> None:
    for shard, count in records.items():
        if shard.name in outdated:
            marker = read_marker(output, f"{shard.name}.json") or {}
            raise InputError(
                f"{output.path}/{shard.name}.json: "
                + changed(marker.get("input"), shard.identity, marker.get("records"), count)
                + f" (of {len(records)} shards, {len(outdated)} changed). Label those again with "
                "--mode retry-failed, all with --mode overwrite, or choose another --output."
            )
