"""The folder of nights: the merged manifest, the history with its log and page, the night begun.

A night closes in this order: its labels become part of the manifest, its record part of the
history, then the plan goes. Stopped anywhere between, the next call finds the plan, and does the
rest; what is done already is found done.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pipelines.made_by import NIGHTS, said_of
from pipelines.output import LABELS_MANIFEST
from policy.errors import InputError
from policy.files import exists
from policy.manifest import LabelsManifest, MadeIn, NightsManifest
from policy.nights import History, NightPlan, NightRecord
from policy.nights_page import render
from policy.schema import T, from_json, to_json
from transforms.commit import RUN, Output

V = TypeVar("V")

FOLDER = "nights"
PLAN = "_night.json"
HISTORY = "_nights.json"
LOG = "_nights.log"
PAGE = "_nights.html"
ENDINGS = (".parquet", ".json")
"""What is added to a shard's name to name its files."""


@dataclass(frozen=True)
class Book:
    """What stands in the folder `place`; `plan` is that of a night which is not closed yet."""

    place: Output
    manifest: NightsManifest | None
    history: History
    plan: NightPlan | None

    @property
    def next_night(self) -> str:
        """The number of a new night, which no night has had; its date is added to it."""
        names = {found.night for found in self.history.nights if found.night}
        names |= self.manifest.nights.keys() if self.manifest else set()
        names |= {self.plan.night} if self.plan else set()
        return f"{1 + max((int(name.partition('-')[0]) for name in names), default=0):04d}"

    def folder(self, night: str) -> str:
        """Where the labels of a night are."""
        return f"{self.place.root}/{FOLDER}/{night}"


def keep_for_nights(place: Output) -> None:
    """Say that a folder is that of `adalabel nightly`; raises InputError if it is another's."""
    said = said_of(place)
    if (said or {}).get("made_by", NIGHTS) != NIGHTS or (
        said is None and exists(f"{place.root}/{LABELS_MANIFEST}")
    ):
        raise InputError(
            f"{place.root}: holds the labels of one run of `adalabel classify`; nights need a "
            "folder of their own: choose another `output` in the job"
        )
    place.create(RUN, json.dumps({"mode": "nightly", "made_by": NIGHTS}, indent=2).encode())


def open_book(place: Output) -> Book:
    """What an earlier call has left."""
    plan = _read(place, PLAN, NightPlan)
    history = _read(place, HISTORY, History) or History(1)
    last = history.last(plan.night) if plan else None
    if last is not None and last.closed:
        plan = None
    return Book(place, read_nights(place.root), history, plan)


def read_nights(root: str) -> NightsManifest | None:
    """The merged manifest, or None where no night has closed yet."""
    return _read(Output(root, ""), LABELS_MANIFEST, NightsManifest)


def _read(place: Output, name: str, kind: type[T]) -> T | None:
    path = f"{place.root}/{name}"
    return from_json(kind, place.read(name, "a file of nights"), path) if exists(path) else None


def begin(book: Book, plan: NightPlan) -> Book:
    """Write down what a night is going to do, before it does any of it."""
    book.place.replace(PLAN, to_json(plan).encode())
    return replace(book, plan=plan)


def merge(book: Book, made: LabelsManifest, shards: Collection[str], gone: Collection[str]) -> Book:
    """Make the labels of these shards, out of those of the night's own manifest, the current ones.

    Those that a shard had before stay where they are, and nothing names them any more, nor those
    of shards that are `gone`.
    """
    if book.plan is None or not shards:
        return book
    plan, known = book.plan, book.manifest
    files, counts, inputs, night_of = {}, {}, {}, {}
    for shard in shards:
        counts[shard], inputs[shard] = made.shards[shard], made.inputs[shard]
        night_of[shard] = plan.night
        for name in (f"{shard}{ending}" for ending in ENDINGS):
            files[name] = replace(made.files[name], at=f"{FOLDER}/{plan.night}/{name}")
    nights = {plan.night: MadeIn(plan.made_by, plan.policy_version)}
    if known:
        lost = {f"{shard}{ending}" for shard in gone for ending in ENDINGS}
        files, counts = _without(known.files, lost) | files, _without(known.shards, gone) | counts
        inputs = _without(known.inputs, gone) | inputs
        night_of = _without(known.night_of, gone) | night_of
        nights = {**known.nights, **nights}
    manifest = NightsManifest(
        1,
        NIGHTS,
        dict(sorted(counts.items())),
        dict(sorted(inputs.items())),
        dict(sorted(files.items())),
        nights={night: nights[night] for night in sorted(set(night_of.values()))},
        night_of=dict(sorted(night_of.items())),
    )
    book.place.replace(LABELS_MANIFEST, to_json(manifest).encode())
    return replace(book, manifest=manifest)


def _without(known: Mapping[str, V], gone: Collection[str]) -> dict[str, V]:
    return {name: one for name, one in known.items() if name not in gone}


def note(book: Book, record: NightRecord) -> Book:
    """Add a record to the history, the log and the page; a closed night's plan goes."""
    history = replace(book.history, nights=(*book.history.nights, record))
    book.place.replace(HISTORY, to_json(history).encode())
    plan = book.plan
    if plan is not None and record.closed and record.night == plan.night:
        book.place.delete(PLAN)
        plan = None
    lines = "".join(f"{found.line()}\n" for found in history.nights)
    book.place.replace(LOG, lines.encode(errors="replace"))
    book.place.replace(PAGE, render(history.nights).encode())
    return replace(book, history=history, plan=plan)
