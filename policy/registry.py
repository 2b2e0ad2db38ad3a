"""What a registry of policies says: its versions, the history of CURRENT, and who may be CURRENT.

Every step of the history knows the one before it and says what is CURRENT after it, so that the
newest step alone tells what to label with, and all of them together how that came to be.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.bundle import Bundle
from policy.errors import Damaged, InputError, shown
from policy.losses import Metric
from policy.schema import STRICT, from_json

Action = Literal["publish", "promote", "rollback"]

LEAST_PREFIX = 6
"""Hexadecimal digits that name a version at least; fewer, if decimal, are its number."""

SHORT = 12
"""Digits of a digest that people are shown."""

_DIGEST = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, config=STRICT)
class Version:
    """A published policy.

    `number` counts from 1 in the order of publishing. `digest` is that of its files (`digest_of`)
    and names its `folder`; `policy` is Bundle.digest, which label files name. `published` is a time
    in UTC (ISO 8601). `cost` (mean per image, in `unit`) was measured on images it was not fitted
    on, `full_cost` is that of the full network. `blessed`: its loss is proved; `proof` says how, or
    why not. A policy without evidence has no promise, method, metric or costs.
    """

    number: int
    digest: str
    folder: str
    policy: str
    published: str
    blessed: bool
    proof: str
    unit: str
    promise: str | None = None
    method: str | None = None
    metric: Metric | None = None
    cost: float | None = None
    full_cost: float | None = None

    @property
    def name(self) -> str:
        """For people and for label files."""
        return f"{self.number} (sha256 {self.digest[:SHORT]})"


@dataclass(frozen=True, config=STRICT)
class Entry:
    """One step of the history: what was done with `subject`, and what is CURRENT after it.

    `forced` where --force overruled a refusal, which `why` then begins with. `by` is the user,
    `run` names the process; `before` is the SHA-256 of the step before, None for the first.
    """

    version: Literal[1]
    step: int
    action: Action
    subject: Version
    current: Version | None
    forced: bool
    why: str
    by: str
    run: str
    when: str
    before: str | None


def digest_of(files: Mapping[str, bytes]) -> str:
    """The content address of files by name: what `sha256sum * | sha256sum` prints beside them."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def version_of(bundle: Bundle, number: int, digest: str, published: str) -> Version:
    """What a registry says of a bundle."""
    evidence, blocked = bundle.evidence, why_not_blessed(bundle)
    known = Version(
        number=number,
        digest=digest,
        folder=f"bundles/{digest}",
        policy=bundle.digest,
        published=published,
        blessed=blocked is None,
        proof=blocked or _proof(bundle),
        unit=bundle.policy.graph.unit,
    )
    if evidence is None:
        return known
    return replace(
        known,
        promise=evidence.promise,
        method=evidence.method,
        metric=evidence.metric,
        cost=evidence.cost,
        full_cost=evidence.full_cost,
    )


def why_not_blessed(bundle: Bundle) -> str | None:
    """Why nothing proves what the policy promises; None where a certificate does."""
    if bundle.evidence is None or bundle.evidence.certificate is None:
        return "it has no certificate; fit it with --max-loss and --confidence 0.95"
    certificate = bundle.evidence.certificate
    if not certificate.passed:
        return (
            f"its certificate proves no policy ({certificate.text}); fit on more labelled images, "
            "or allow a larger --max-loss"
        )
    return None


def _proof(bundle: Bundle) -> str:
    certificate = bundle.evidence.certificate if bundle.evidence else None
    return certificate.text if certificate else ""


def entries_of(contents: Sequence[bytes], where: str) -> tuple[Entry, ...]:
    """The history from the content of its files, oldest first; raises Damaged where it breaks."""
    entries: list[Entry] = []
    before = None
    for step, content in enumerate(contents, start=1):
        found = entry_of(content, f"{where}, step {step}")
        if (found.step, found.before) != (step, before):
            raise Damaged(
                f"{where}: step {step} does not follow the step before it; the history was "
                "changed. Restore the files from a copy."
            )
        entries.append(found)
        before = hashlib.sha256(content).hexdigest()
    return tuple(entries)


def entry_of(content: bytes, where: str) -> Entry:
    """One step; raises Damaged on what is none."""
    try:
        return from_json(Entry, content, where)
    except InputError as error:
        raise Damaged(f"{error}. Restore the file from a copy.") from error


def versions_of(entries: Sequence[Entry]) -> tuple[Version, ...]:
    """All that were published, by rising number."""
    found = {entry.subject.number: entry.subject for entry in entries}
    return tuple(found[number] for number in sorted(found))


def current_of(entries: Sequence[Entry]) -> Version | None:
    """What the newest step leaves as CURRENT."""
    return entries[-1].current if entries else None


def was_current(entries: Sequence[Entry]) -> set[int]:
    """The numbers of the versions that are or were CURRENT."""
    return {entry.current.number for entry in entries if entry.current}


def predecessor(entries: Sequence[Entry]) -> Version | None:
    """What CURRENT took the place of, so that going back twice goes back two versions."""
    trail: list[Version] = []
    for entry in entries:
        if entry.current is None or (trail and trail[-1] == entry.current):
            continue
        if entry.action == "rollback" and entry.current in trail:
            del trail[trail.index(entry.current) + 1 :]
        else:
            trail.append(entry.current)
    return trail[-2] if len(trail) > 1 else None


def why_not_promoted(version: Version, entries: Sequence[Entry]) -> str | None:
    """Why a version may not become CURRENT without --force; None if it may."""
    current = current_of(entries)
    if current and (version.number < current.number or version.number in was_current(entries)):
        return (
            f"it is older than CURRENT, version {current.name}; `adalabel policy rollback` goes "
            "back to a version that was CURRENT"
        )
    return None if version.blessed else version.proof


def find(versions: Sequence[Version], named: str, current: Version | None, where: str) -> Version:
    """The version of this number, of the digest that starts so, or CURRENT.

    Raises InputError, listing the last few, where there is none or more than one.
    """
    if named == "CURRENT":
        if current is None:
            raise InputError(f"{where}: no policy was promoted there, so nothing is CURRENT")
        return current
    found = [version for version in versions if _is_named(version, named)]
    if len(found) != 1:
        known = ", ".join(version.name for version in versions[-5:]) or "none"
        raise InputError(
            f"{where}: {len(found)} versions are called {shown(named, 80)!r}; wanted a number, the "
            f"first {LEAST_PREFIX} or more digits of a digest, or CURRENT. The last are: {known}"
        )
    return found[0]


def _is_named(version: Version, named: str) -> bool:
    if named.isdecimal() and len(named) < LEAST_PREFIX:
        return version.number == int(named)
    return bool(_DIGEST.fullmatch(named)) and version.digest.startswith(named)
