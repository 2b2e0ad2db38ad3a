"""adalabel nightly: label what is new since the last night with the policy in use."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines import classify
from pipelines.hold import held
from pipelines.job import Job, read_job
from pipelines.made_by import VERSION
from pipelines.night_book import Book, keep_for_nights, note, open_book
from pipelines.night_run import Night, label_night, now, options_of, refused
from pipelines.night_shards import Survey, survey
from pipelines.options import DryRunOptions
from pipelines.places import Runner
from pipelines.policy_source import Source
from pipelines.registry import open_registry
from policy.errors import Alarm, Damaged, InputError, Stopped, TooManyBad
from policy.nights import NightPlan, NightRecord, exit_code_of
from policy.registry import Version
from transforms.commit import Output
from transforms.shards import Shard
from transforms.watch import read_alarm

_LOG = logging.getLogger("adalabel")

_NO_WAIT = "--no_wait_until_finish"

_HOPELESS = {
    InputError.exit_code: "with it the night was refused",
    TooManyBad.exit_code: "too many of its records were rejected",
    Damaged.exit_code: "it is not what was published",
}
"""How a night may end that only another policy would end otherwise, by the exit code."""


@dataclass(frozen=True, kw_only=True)
class NightlyOptions(DryRunOptions):
    """Label what is new since the last night; a night that was stopped is gone on with first."""

    job: str
    """The job file (TOML): networks, policies, input, output; see docs/nights.md."""

    @property
    def runner(self) -> Runner:
        """Where the pipelines run, as the job says."""
        return read_job(self.job).run.runner


@dataclass(frozen=True)
class NightlyReceipt:
    """What came of a call: a record of each night that it worked on.

    `exit_code` is that of the command: 0, or as in policy/errors.py. `shards` and `records` are all
    that is labelled by now.
    """

    output: str
    exit_code: int
    nights: tuple[NightRecord, ...]
    shards: int
    records: int

    def text(self) -> str:
        """For people: a line for each night, as in the log."""
        lines = [record.line() for record in self.nights]
        return "\n".join(
            [*lines, f"{self.output}: {self.shards} shards, {self.records} records are labelled"]
        )


@dataclass(frozen=True)
class InUse:
    """The version that is CURRENT, and all that decides labels by it."""

    version: Version
    made_by: dict[str, str]
    policy: str


def run(options: NightlyOptions, beam_args: Sequence[str]) -> NightlyReceipt:
    """Finish the night that was stopped, then label what is new; each is noted.

    What goes wrong once the folder is ours is in the receipt, not raised. Raises OutputInUse while
    another night goes on.
    """
    job = read_job(options.job)
    if _NO_WAIT in beam_args:
        raise InputError(
            f"{_NO_WAIT}: a night has to wait for its job, or no labels become part of the "
            "manifest; leave it out"
        )
    with held(job.output) as place:
        keep_for_nights(place)
        book = open_book(place)
        first = len(book.history.nights)
        book = _call(job, book, beam_args)
    records = book.history.nights[first:]
    for record in records:
        if record.exit_code:
            _LOG.error("%s", record.message)
    known = book.manifest
    return NightlyReceipt(
        output=job.output,
        exit_code=exit_code_of(records),
        nights=records,
        shards=len(known.shards) if known else 0,
        records=sum(known.shards.values()) if known else 0,
    )


def _call(job: Job, book: Book, beam_args: Sequence[str]) -> Book:
    """All nights of one call."""
    first = len(book.history.nights)
    try:
        for chosen in (_stopped, _fresh):
            in_use = find_in_use(job, book)
            book, night = chosen(job, book, in_use)
            if night is not None:
                book = label_night(job, book, night, beam_args)
                if book.plan is not None:  # it was stopped, for a reason that is noted
                    return book
    except (InputError, Stopped) as error:
        return note(book, refused(error))
    if len(book.history.nights) == first:
        return note(book, NightRecord(None, now(), 0.0, 0, "nothing to do"))
    return book


def find_in_use(job: Job, book: Book) -> InUse:
    """Raises InputError where nothing is CURRENT, and Damaged where it is not as published."""
    registry = open_registry(job.policies)
    version = registry.current()
    if version is None:
        raise InputError(
            f"{job.policies}: no policy is in use; publish one with `adalabel policy publish`"
        )
    source = Source(registry.read(version), version)
    options = options_of(job, version.number, book.folder("next"))
    return InUse(version, classify.made_by(options, source), source.bundle.digest)


def _stopped(job: Job, book: Book, in_use: InUse) -> tuple[Book, Night | None]:
    """The night that was stopped, with what is new if it has the policy in use, or given up."""
    plan = book.plan
    if plan is None:
        return book, None
    alarm = book.history.alarm(plan.policy) or read_alarm(Output(book.folder(plan.night), ""))
    why = _given_up(job, book, in_use, alarm)
    if why is not None:
        record = replace(refused(InputError(why), plan), exit_code=0, closed=True, alarm=alarm)
        return note(book, record), None
    found = found_now(job, book)
    here = [s for s in found.shards if plan.shards.get(s.name, s.identity) == s.identity]
    if plan.made_by != in_use.made_by:
        here = [shard for shard in here if shard.name in plan.shards]
    check_alarm(job, plan.policy_version, book.history.alarm(plan.policy), len(here))
    return book, Night(_planned(plan, here), tuple(here), found, alarm, resumed=True)


def _given_up(job: Job, book: Book, in_use: InUse, alarm: str | None) -> str | None:
    """Why a night that was stopped is not gone on with; its shards are new again."""
    plan = book.plan
    if plan is None:
        return None
    anew = "given up, its shards are labelled anew: "
    if book.manifest is not None and plan.night in book.manifest.nights:
        anew = "given up, its labels are part of the manifest and stay, all others are made anew: "
    for name in sorted((plan.made_by.keys() | in_use.made_by.keys()) - {"policy", VERSION}):
        was, wanted = plan.made_by.get(name), in_use.made_by.get(name)
        if was != wanted:
            return f"{anew}it was begun with {name} {was}, and now the job has {wanted}"
    begun_with = plan.made_by.get(VERSION)  # a number alone would be another one's elsewhere
    if begun_with not in {version.name for version in open_registry(job.policies).versions()}:
        return f"{anew}{job.policies} has no policy {begun_with}, which it was begun with"
    last = book.history.last(plan.night)
    why = _HOPELESS.get(last.exit_code) if last else None
    if alarm and job.audit.on_alarm == "stop":
        why = why or "an alarm stands against it"
    if why and plan.policy != in_use.policy:
        return f"{anew}policy {plan.policy_version} is not in use any more, and {why}"
    return None


def _fresh(job: Job, book: Book, in_use: InUse) -> tuple[Book, Night | None]:
    """A new night, if there is something to label."""
    found = found_now(job, book)
    if not found.shards:
        return book, None
    alarm = book.history.alarm(in_use.policy)
    check_alarm(job, in_use.version.number, alarm, len(found.shards))
    begun = now()
    plan = NightPlan(
        version=1,
        night=f"{book.next_night}-{begun.partition('T')[0]}",
        begun=begun,
        policy=in_use.policy,
        policy_version=in_use.version.number,
        made_by=in_use.made_by,
        shards={},
    )
    shards = found.shards
    return book, Night(_planned(plan, shards), shards, found, alarm, resumed=False)


def _planned(plan: NightPlan, shards: Sequence[Shard]) -> NightPlan:
    """The plan with these shards; what was planned before stays, as files of it may be there."""
    return replace(plan, shards={s.name: s.identity for s in shards} | plan.shards)


def found_now(job: Job, book: Book) -> Survey:
    """What is to be labelled; what the night that was stopped had made current already, is too."""
    known, inputs = book.manifest, {}
    if known is not None:
        stopped = book.plan.night if book.plan else None
        inputs = {
            name: made for name, made in known.inputs.items() if known.night_of[name] != stopped
        }
    begun = [found.began for found in book.history.nights if found.night and found.closed]
    return survey(job.input, inputs, begun[-1] if begun else None)


def check_alarm(job: Job, version: int, alarm: str | None, waiting: int) -> None:
    """Raise Alarm if a policy with an alarm is not to be used any more."""
    if alarm is not None and waiting and job.audit.on_alarm == "stop":
        raise Alarm(
            f"policy {version} is not used any more, since an alarm stands against it: {alarm}. "
            f"{waiting} shards wait for another policy (adalabel refit, or adalabel policy "
            'publish), or for on-alarm = "full" (the full network) or "warn" in the job'
        )
