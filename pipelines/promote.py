"""Moving CURRENT: publishing a policy into a registry, and going back to an earlier one.

Whoever is stopped on the way leaves the old CURRENT or the new one: files of a bundle that no step
of the history names are nothing yet, and the step itself appears whole or not at all.
"""

import getpass
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.attempts import clean_attempts, remove_own
from pipelines.registry import Registry, name_of_run
from policy.bundle import REPORT, bundle_of, read_files
from policy.errors import InputError, OutputInUse
from policy.files import exists, read_bytes
from policy.registry import (
    Action,
    Entry,
    Version,
    current_of,
    digest_of,
    find,
    predecessor,
    version_of,
    versions_of,
    was_current,
    why_not_promoted,
)
from policy.schema import to_json
from transforms.chain import POINTER, Chain, step_name

_TRIES = 100


@dataclass(frozen=True)
class Wish:
    """What is asked for: to become CURRENT or only to be stored, by force if need be, and why."""

    promote: bool = True
    force: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The version, and whether it is CURRENT now. `before` was CURRENT before.

    `refused` says why it was stored and not promoted; `forced` that such a reason was overruled.
    """

    version: Version
    before: Version | None
    promoted: bool
    forced: bool = False
    refused: str | None = None


def publish(
    registry: Registry, folder: str, wish: Wish, seen: Sequence[Entry] | None = None
) -> Outcome:
    """Store the policy of a folder, and make it CURRENT if it may be.

    `seen` is the history that the wish goes by, None for that of now. A policy that is there
    already keeps its number. Raises OutputInUse if CURRENT moved meanwhile.
    """
    files = read_files(folder)
    bundle = bundle_of(files, folder)
    if exists(f"{folder}/{REPORT}"):
        files[REPORT] = read_bytes(f"{folder}/{REPORT}", "the report")
    digest = digest_of(files)
    expected = registry.current() if seen is None else current_of(seen)
    with _writing(registry) as chain:
        for name, content in files.items():
            chain.output.create(f"bundles/{digest}/{name}", content)
        for _ in range(_TRIES):
            history = registry.history()
            versions = versions_of(history)
            known = next((version for version in versions if version.digest == digest), None)
            version = known or version_of(bundle, len(versions) + 1, digest, _now())
            registry.files(version)  # raises Damaged unless what stands there is what was given
            if wish.promote:
                _check_unmoved(registry, expected, current_of(history))
            outcome = _outcome(version, history, wish)
            moves = outcome.promoted and version != outcome.before
            if (known and not moves) or _step(chain, history, _said(outcome, known, wish)):
                return _placed(registry, outcome)
    raise _busy(registry)


def rollback(registry: Registry, to: str | None, why: str) -> Outcome:
    """Make CURRENT what it took the place of, or the one that `to` names and that was CURRENT.

    Raises InputError where there is none, and OutputInUse if CURRENT moved meanwhile.
    """
    expected = registry.current()
    with _writing(registry) as chain:
        for _ in range(_TRIES):
            history = registry.history()
            _check_unmoved(registry, expected, current_of(history))
            version = _earlier(registry, history, to)
            registry.read(version)  # raises Damaged where it cannot be what labels next
            outcome = Outcome(version=version, before=current_of(history), promoted=True)
            if version == outcome.before or _step(chain, history, _Step("rollback", outcome, why)):
                return _placed(registry, outcome)
    raise _busy(registry)


@dataclass(frozen=True)
class _Step:
    """What a step of the history is to say."""

    action: Action
    outcome: Outcome
    why: str


def _outcome(version: Version, history: Sequence[Entry], wish: Wish) -> Outcome:
    """What becomes of a version that is stored."""
    before = current_of(history)
    if version == before or not wish.promote:
        return Outcome(version=version, before=before, promoted=version == before)
    refused = why_not_promoted(version, history)
    return Outcome(
        version=version,
        before=before,
        promoted=refused is None or wish.force,
        forced=refused is not None and wish.force,
        refused=refused,
    )


def _said(outcome: Outcome, known: Version | None, wish: Wish) -> _Step:
    overruled = [f"forced, although {outcome.refused}"] if outcome.forced else []
    why = "; ".join([*overruled, *([wish.why] if wish.why else [])])
    return _Step("promote" if known else "publish", outcome, why)


def _step(chain: Chain, history: Sequence[Entry], said: _Step) -> bool:
    """Make the next step of the history; returns whether it is ours."""
    last = chain.read(step_name(len(history))) if history else None
    outcome = said.outcome
    entry = Entry(
        version=1,
        step=len(history) + 1,
        action=said.action,
        subject=outcome.version,
        current=outcome.version if outcome.promoted else outcome.before,
        forced=outcome.forced,
        why=said.why,
        by=_user(),
        run=chain.output.run,
        when=_now(),
        before=None if last is None else hashlib.sha256(last).hexdigest(),
    )
    return chain.append(entry.step, to_json(entry).encode())


def _earlier(registry: Registry, history: Sequence[Entry], to: str | None) -> Version:
    """The version to go back to."""
    current = current_of(history)
    if to is None:
        before = predecessor(history)
        if before is None:
            raise InputError(
                f"{registry.root}: nothing was CURRENT before what is CURRENT now; publish another "
                "policy, or name a version with --to"
            )
        return before
    found = find(versions_of(history), to, current, registry.root)
    if found.number not in was_current(history):
        raise InputError(
            f"{registry.root}: version {found.name} never was CURRENT, so nothing can be rolled "
            f"back to it; promote it with `adalabel policy publish --policy {registry.root}/"
            f"bundles/{found.digest}`"
        )
    return found


def _check_unmoved(registry: Registry, expected: Version | None, found: Version | None) -> None:
    """Raise OutputInUse if another has moved CURRENT since this command began."""
    if (expected and expected.number) != (found and found.number):
        now = f"version {found.name}" if found else "nothing"
        raise OutputInUse(
            f"{registry.root}: another run moved CURRENT meanwhile: it is {now} now. Look at it "
            "with `adalabel policy list`, then run the command again if it is still wanted."
        )


def _busy(registry: Registry) -> OutputInUse:
    return OutputInUse(
        f"{registry.root}: others took {_TRIES} steps before this run could take one; run the "
        "command again"
    )


@contextmanager
def _writing(registry: Registry) -> Iterator[Chain]:
    """What makes steps, with CURRENT where the last step wants it."""
    run = name_of_run()
    chain = registry.chain(run)
    try:
        chain.follow()
        yield chain
    finally:
        _clean(registry, chain)


def _clean(registry: Registry, chain: Chain) -> None:
    """Remove what our run and dead ones left; in a bucket, nobody leaves half a file."""
    if "://" in registry.root:
        return
    pointer = Path(registry.root) / POINTER
    if pointer.exists():
        clean_attempts(registry.root, chain.output.run, pointer)
    remove_own(chain.output)


def _placed(registry: Registry, outcome: Outcome) -> Outcome:
    """The outcome with whole paths of folders."""
    before = outcome.before and registry.placed(outcome.before)
    return replace(outcome, version=registry.placed(outcome.version), before=before)


def _user() -> str:
    """Who runs this; in a container perhaps only a number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python before 3.13 raises the former
        return f"user {os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
