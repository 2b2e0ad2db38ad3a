"""One night: label its shards in a folder of its own, and say what came of it."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipelines import classify
from pipelines.attempts import remove_own
from pipelines.classify_receipt import ClassifyReceipt
from pipelines.job import Job
from pipelines.labels import LABELS
from pipelines.night_book import Book, begin, merge, note
from pipelines.night_shards import Survey, dissolved, unchanged
from pipelines.output import RECEIPT, known_manifest
from policy.alarm import Nights
from policy.errors import Alarm, InputError, Stopped, shown
from policy.files import exists, read_bytes
from policy.manifest import LabelsManifest
from policy.nights import NightPlan, NightRecord
from policy.schema import from_fields, parse_json
from transforms.commit import Output
from transforms.failures import reasons_given
from transforms.shards import Shard
from transforms.watch import carry_alarm


@dataclass(frozen=True)
class Night:
    """A night that is begun or gone on with (`resumed`), and the `shards` that are to be labelled.

    `survey` knows which of them are new, late or rewritten; `alarm` stands against its policy.
    """

    plan: NightPlan
    shards: tuple[Shard, ...]
    survey: Survey
    alarm: str | None
    resumed: bool


def options_of(job: Job, version: int, output: str) -> classify.ClassifyOptions:
    """Those of `adalabel classify`, for labels by a version of the registry."""
    return classify.ClassifyOptions(
        networks=job.networks,
        policy=f"{job.policies}@{version}",
        input=job.input,
        output=output,
        audit_fraction=job.audit.fraction,
        on_alarm=job.audit.on_alarm,
        **job.run.options,
    )


def label_night(job: Job, book: Book, night: Night, beam_args: Sequence[str]) -> Book:
    """Label what is left of a night, make it part of the manifest, and note what came of it.

    What is raised for the user is noted too, with its exit code, and does not pass.
    """
    start, began, plan = time.monotonic(), now(), night.plan
    book = begin(book, plan)
    output = book.folder(plan.night)
    if night.alarm is not None:
        place = Output(output, book.place.run)
        carry_alarm(place, night.alarm)
        remove_own(place)
    try:
        nights = book.history.audits(plan.policy)
        _label(options_of(job, plan.policy_version, output), night.shards, nights, beam_args)
        made = known_manifest(output, LABELS)
        done = _current(job, night, made)
        if made is not None:
            book = merge(book, made, done, _gone(job, book, night, done))
        record = _record(night, done, output)
    except (InputError, Stopped) as error:
        record = refused(error, plan)
    seconds = round(time.monotonic() - start, 1)
    return note(book, replace(record, began=began, seconds=seconds, resumed=night.resumed))


def _label(
    options: classify.ClassifyOptions,
    shards: tuple[Shard, ...],
    nights: Nights,
    beam_args: Sequence[str],
) -> None:
    """Label shards, without those that change meanwhile; an alarm may stop it, and is noted."""
    while shards:
        try:
            with reasons_given():
                classify.label(options, shards, nights, beam_args)
        except Alarm:
            return
        except (InputError, Stopped):
            still = unchanged(options.input, shards)
            if len(still) == len(shards):
                raise
            shards = still
        else:
            return


def _current(job: Job, night: Night, made: LabelsManifest | None) -> set[str]:
    """The shards of a night whose labels are of what is there now.

    Of the groups of a folder of plain image files all or none: files go from one to another.
    """
    inputs = made.inputs if made else {}
    still = unchanged(job.input, night.shards)
    done = {shard.name for shard in still if inputs.get(shard.name) == shard.identity}
    halves = {shard.path for shard in night.shards if shard.files and shard.name not in done}
    return done - {shard.name for shard in night.shards if shard.files and shard.path in halves}


def _gone(job: Job, book: Book, night: Night, done: Collection[str]) -> set[str]:
    """The shards whose records are in other shards of this night now."""
    inputs = book.manifest.inputs if book.manifest else {}
    return dissolved(job.input, [shard for shard in night.shards if shard.name in done], inputs)


def _record(night: Night, done: Collection[str], output: str) -> NightRecord:
    """What came of a night that went to its end, or was ended by an alarm."""
    plan, waiting = night.plan, 0
    found = NightRecord(
        plan.night, plan.begun, 0.0, 0, "nothing was left to label", policy=plan.policy
    )
    found = replace(found, policy_version=plan.policy_version)
    if exists(f"{output}/{RECEIPT}"):
        path = f"{output}/{RECEIPT}"
        content = read_bytes(path, "the receipt of the night")
        receipt = from_fields(ClassifyReceipt, parse_json(content, path), path)
        waiting = receipt.reality.not_begun
        found = _with_receipt(found, receipt)
    new, late, rewritten = night.survey.counts(done)
    left = len(night.shards) - len(done) - waiting
    return replace(found, left=left, waiting=waiting, new=new, late=late, rewritten=rewritten)


def _with_receipt(record: NightRecord, receipt: ClassifyReceipt) -> NightRecord:
    account, reality = receipt.account, receipt.reality
    alarm = f"ALARM: {reality.alarm}" if reality.alarm else "done"
    return replace(
        record,
        exit_code=Alarm.exit_code if reality.alarm else 0,
        message=alarm,
        records=account.seen,
        labelled=account.labelled,
        rejected=sum(account.rejected.values()),
        cost=receipt.cost,
        full_cost=receipt.full_cost,
        unit=receipt.unit,
        audited=reality.audited,
        disagreed=reality.disagreed,
        bound=reality.bound,
        evidence=reality.evidence,
        alarm=reality.alarm,
    )


def refused(error: InputError | Stopped, plan: NightPlan | None = None) -> NightRecord:
    """The record of a night that could not be done; what is begun of it is gone on with later."""
    record = NightRecord(None, now(), 0.0, error.exit_code, shown(error, 4_000))
    if plan is None:
        return record
    return replace(
        record,
        night=plan.night,
        closed=False,
        policy=plan.policy,
        policy_version=plan.policy_version,
    )


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
