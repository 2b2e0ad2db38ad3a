"""adalabel refit: fit again on new labelled images, and use the new policy only if it is better."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines import extract, fit
from pipelines.claim import claimed
from pipelines.extract import ExtractOptions
from pipelines.fit import settings_of, short_digest
from pipelines.job import Job, RefitTable, read_job
from pipelines.options import CommandOptions
from pipelines.output import known_manifest
from pipelines.places import Runner
from pipelines.promote import Wish, publish
from pipelines.refit_decision import decide, fitted_on, shards_of
from pipelines.registry import Registry, open_registry
from pipelines.table import TABLE
from policy.bundle import Bundle, FittedOn, read_bundle
from policy.compare import Comparison
from policy.errors import InputError
from policy.registry import Entry, Version, current_of, versions_of
from transforms.shards import Shard, match_shards

_LOG = logging.getLogger("adalabel")

LOCK = "_refit"
"""The folder of a table that is held while a refit goes on."""


@dataclass(frozen=True, kw_only=True)
class RefitOptions(CommandOptions):
    """Fit on new labelled shards, and put the new policy into use only if it is better."""

    job: str
    """The job file (TOML) with a table [refit]; see docs/refit.md."""

    @property
    def runner(self) -> Runner:
        """Where the extraction runs, as the job says."""
        return read_job(self.job).run.runner


@dataclass(frozen=True)
class RefitReceipt:
    """What a refit did. `reason` says why the new policy is in use now, or why not.

    `new_shards` are those that `in_use`, the policy in use before, was not fitted on as they are
    now. `candidate` is what was fitted, now or by an earlier refit on the same; None where nothing
    was new. `comparison` is None where the two were not compared.
    """

    policies: str
    new_shards: tuple[str, ...]
    in_use: Version | None
    candidate: Version | None
    promoted: bool
    reason: str
    comparison: Comparison | None
    seconds: float

    def text(self) -> str:
        """For people."""
        before = f"version {self.in_use.name}" if self.in_use else "none"
        lines = [f"{self.policies}: {len(self.new_shards)} new labelled shards; in use: {before}"]
        if self.candidate:
            how = "now in use" if self.promoted else "not put into use"
            lines.append(f"  version {self.candidate.name}: {how}: {self.reason}")
            lines.append(f"  report: {self.candidate.folder}/report.html")
        else:
            lines.append(f"  {self.reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Before:
    """What was there when a refit began: the history, and the policy in use with its version."""

    history: tuple[Entry, ...]
    version: Version | None
    bundle: Bundle | None


def run(options: RefitOptions, beam_args: Sequence[str]) -> RefitReceipt:
    """Extract, fit, compare, publish; raises OutputInUse while another refit has the table.

    Killed at any point and run again, it comes to the same versions and the same CURRENT.
    """
    start = time.monotonic()
    job = read_job(options.job)
    if job.refit is None:
        raise InputError(f"{options.job}: no table [refit]; see docs/refit.md for what it says")
    registry = open_registry(job.policies)
    with claimed(f"{job.refit.table}/{LOCK}"):
        found = _refit(job, job.refit, registry, beam_args)
    return replace(found, seconds=time.monotonic() - start)


def _refit(
    job: Job, wanted: RefitTable, registry: Registry, beam_args: Sequence[str]
) -> RefitReceipt:
    """What there is to do, once no other refit is at work."""
    before = _before(registry)
    shards = match_shards(wanted.input)
    new = _new(before, shards)
    receipt = RefitReceipt(
        policies=job.policies,
        new_shards=new,
        in_use=before.version,
        candidate=None,
        promoted=False,
        reason="no labelled shard is new since the policy in use was fitted: nothing to do",
        comparison=None,
        seconds=0.0,
    )
    if before.version is not None and not new:
        return receipt
    settings = settings_of(wanted.options(""))
    known = _done_before(registry, before, FittedOn(_will_hold(wanted, shards), settings))
    if known is not None:
        why = f"was fitted on just this before, with the same options; {_said(before, known)}"
        return replace(receipt, candidate=known, reason=why)
    _extract(job, wanted, shards, beam_args)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit.run(wanted.options(folder))
        _LOG.info("%s", fitted.text().replace(f"{folder}/", "").replace(folder, "the candidate"))
        decision = decide((read_bundle(folder), before.bundle), new, wanted.options(folder))
        wish = Wish(promote=decision.promote, why=f"refit: {decision.reason}")
        outcome = publish(registry, folder, wish, before.history)
    return replace(
        receipt,
        candidate=outcome.version,
        promoted=outcome.promoted,
        reason=outcome.refused or decision.reason,
        comparison=decision.comparison,
    )


def _before(registry: Registry) -> _Before:
    history = registry.history()
    version = current_of(history)
    if version is None:
        return _Before(history, None, None)
    return _Before(history, registry.placed(version), registry.read(version))


def _new(before: _Before, shards: Sequence[Shard]) -> tuple[str, ...]:
    """The shards that the policy in use was not fitted on, or not as they are now."""
    known = shards_of(before.bundle)
    return tuple(
        shard.name for shard in shards if known.get(shard.name) != short_digest(shard.identity)
    )


def _will_hold(wanted: RefitTable, shards: Sequence[Shard]) -> dict[str, str]:
    """What the table will hold once these are extracted; see FittedOn."""
    known = known_manifest(wanted.table, TABLE)
    held = {name: known.inputs.get(name, "") for name in known.shards} if known else {}
    held |= {shard.name: shard.identity for shard in shards}
    return {name: short_digest(made_from) for name, made_from in held.items()}


def _done_before(registry: Registry, before: _Before, wanted: FittedOn) -> Version | None:
    """A version after the one in use that was fitted on just this."""
    current = before.version.number if before.version else 0
    for version in reversed(versions_of(before.history)):
        if version.number > current and fitted_on(registry.read(version)) == wanted:
            return registry.placed(version)
    return None


def _said(before: _Before, version: Version) -> str:
    """What the history says of a version last."""
    why = [step.why for step in before.history if step.subject.number == version.number]
    return why[-1] or "the history does not say why it is not in use"


def _extract(
    job: Job, wanted: RefitTable, shards: Sequence[Shard], beam_args: Sequence[str]
) -> None:
    """Extract what the table lacks, and what has changed since."""
    known = known_manifest(wanted.table, TABLE)
    inputs = known.inputs if known else {}
    changed = [s.name for s in shards if inputs.get(s.name, s.identity) != s.identity]
    own = job.run.options | {"mode": "retry-failed" if changed else "resume"}
    options = ExtractOptions(**own, networks=job.networks, input=wanted.input, output=wanted.table)
    _LOG.info("%s", extract.run(options, beam_args).text())
