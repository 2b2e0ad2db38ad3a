"""adalabel nightly --dry-run: what a night that began now would label, and what that would take."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.dry_run import DryRun
from pipelines.explain_classify import looked_over
from pipelines.job import read_job
from pipelines.night_book import open_book
from pipelines.night_run import options_of
from pipelines.nightly import NightlyOptions, check_alarm, find_in_use, found_now
from policy.errors import Alarm
from transforms.commit import Output


def run(options: NightlyOptions, beam_args: Sequence[str]) -> DryRun:
    """Look at everything as a night would, and hold nothing: a night may go on meanwhile.

    Shards of a night that was stopped count as done where a next call would find them done; but all
    of a night with another policy than the one in use count as to do, at the price of the latter.
    """
    job = read_job(options.job)
    book = open_book(Output(job.output, ""))
    in_use, found = find_in_use(job, book), found_now(job, book)
    stopped = book.plan if book.plan and book.plan.made_by == in_use.made_by else None
    folder = book.folder(stopped.night if stopped else book.next_night)
    labelling = replace(
        options_of(job, in_use.version.number, folder),
        costs=options.costs,
        usd_per_hour=options.usd_per_hour,
    )
    told = looked_over("nightly", labelling, found.shards, beam_args)
    known = set(book.manifest.shards) if book.manifest else set()
    done = told.todo.done + len(known - {shard.name for shard in found.shards})
    todo = replace(told.todo, done=done, changed=len(found.rewritten))
    alarm = book.history.alarm(in_use.policy)
    try:
        check_alarm(job, in_use.version.number, alarm, len(found.shards))
    except Alarm as error:
        todo = replace(todo, refused=str(error))
    return replace(told, output=job.output, todo=todo)
