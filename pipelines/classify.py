"""adalabel classify: label shards of images, each image leaving the networks as early as it can."""

import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from apache_beam.utils.shared import Shared

from pipelines.accounting import Account, account_for, check_bad_fraction
from pipelines.alarms import (
    alarm_before,
    audit_plan,
    check_full,
    compared,
    end,
    is_part_of_a_replacement,
    watch_of,
)
from pipelines.classify_receipt import ClassifyReceipt
from pipelines.job_graph import JobGraph, job_graph
from pipelines.labels import LABELS, Plan
from pipelines.options import DryRunOptions, RunOptions, ShardOptions
from pipelines.output import RECEIPT, Session, opened
from pipelines.policy_source import Source, read_policy
from pipelines.promise import Reality
from pipelines.run_shards import count_all, run_shards
from pipelines.time_spent import time_spent
from policy.alarm import Nights
from policy.bundle import Bundle, write_bundle
from policy.errors import InputError
from policy.manifest import LabelsManifest
from policy.rows import NONFINITE, OK
from policy.schema import parse_json
from transforms.commit import Output
from transforms.files import exists
from transforms.label import Label, LabelOptions, load_checked
from transforms.networks_file import read_networks
from transforms.shards import Shard
from transforms.watch import OnAlarm, keep_records, read_alarm

__all__ = ["ClassifyOptions", "ClassifyReceipt", "label", "made_by", "run"]

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(ShardOptions, DryRunOptions, RunOptions):
    """Label shards with a policy, running only the stages it asks for."""

    networks: str
    """The networks file (TOML); networks that the policy uses must be those it was fitted for."""
    policy: str
    """The policy's folder, made by `adalabel fit`; or a registry's (docs/policies.md), for its
    CURRENT, with @VERSION for another: its number or the first digits of its digest."""
    output: str
    """Folder of the labels; shards already done there are skipped."""
    topk: int = 5
    """Classes and probabilities written for every image; for one labelled by an average, at most as
    many as the policy averages (five, where there are more than a hundred classes)."""
    audit_fraction: float = 0.01
    """Share of the images, chosen by a hash of their keys, whose early label is compared with the
    full network's (docs/promise.md); 0: none. Costs this share of the full network's cost for each
    image that stops early, less what its trail shares; labels and trails stay as they are."""
    on_alarm: OnAlarm = "warn"
    """What to do when the audits refute the policy's promise. warn: say so; full: send shards that
    are not begun yet through the full network alone; stop: begin no more shards, and end with exit
    code 6. With full and stop, the result depends on the order in which shards finish."""

    def __post_init__(self) -> None:
        """Refuse rows without a class, and a share that is none."""
        super().__post_init__()
        if self.topk < 1:
            raise InputError(f"--topk {self.topk}: wanted at least 1")
        if not 0 <= self.audit_fraction <= 1:
            raise InputError(
                f"--audit-fraction {self.audit_fraction:g}: wanted 0 (no audit) to 1 (every image)"
            )


def run(options: ClassifyOptions, beam_args: Sequence[str]) -> ClassifyReceipt:
    """Label what is not labelled yet; then write the receipt, and last the manifest."""
    return label(options, options.shards(), None, beam_args)


def made_by(options: ClassifyOptions, source: Source) -> dict[str, str]:
    """All that decides the labels."""
    return {**source.made_by, "--topk": str(options.topk), **options.made_by}


def label(
    options: ClassifyOptions, shards: Sequence[Shard], nights: Nights, beam_args: Sequence[str]
) -> ClassifyReceipt:
    """Label these shards, after those of earlier `nights` with this policy (policy/alarm.py)."""
    options.check_reach((options.output, *(shard.path for shard in shards)))
    networks, source = read_networks(options.networks), read_policy(options.policy)
    bundle = source.bundle
    shared, load = Shared(), partial(load_checked, networks, bundle, options.launcher)
    loaded = shared.acquire(load) if options.in_one_process else load()
    audit = audit_plan(bundle, loaded.engine, options.audit_fraction)
    check_full(bundle, loaded.engine, options.on_alarm)
    if not options.in_one_process:
        del loaded  # workers load their own, perhaps where this was
    makers = made_by(options, source)
    with opened(options.output, options.mode, LABELS, makers) as session:
        alarm = alarm_before(session, options.on_alarm)
        records = count_all(shards)
        plan = Plan.of(session, {shard: records[shard.name] for shard in shards}, makers)
        if alarm and not plan.unpublished:
            raise alarm
        start = time.monotonic()
        if plan.to_do and not alarm:
            counts = keep_records(session.output, records)
            watch = watch_of(bundle, options.on_alarm, audit, counts, nights)
            wanted = LabelOptions(session.output, options.topk, makers, audit, watch)
            policy = session.output.own("policy")
            write_bundle(policy, bundle)
            transform = Label(networks, policy, wanted, options.worker, shared)
            todo = {shard: records[shard.name] for shard in plan.to_do}
            run_shards(transform, todo, session.output, (session.output.path, ".json"), beam_args)
        seconds = time.monotonic() - start
        outcome = _outcome(plan, records, bundle, options.on_alarm, nights, seconds)
        receipt = _receipt(options.output, source, outcome)
        _publish(session, plan, options, receipt)
        end(session, options.on_alarm, receipt.reality)
    return receipt


def job(options: ClassifyOptions, shards: int, beam_args: Sequence[str]) -> JobGraph:
    """What `run` would hand to its runner for so many shards; nothing is read but the networks."""
    output = Output(options.output, "RUN")
    wanted = LabelOptions(output, options.topk, options.made_by)
    networks = read_networks(options.networks)
    label = Label(networks, output.own("policy"), wanted, options.worker)
    return job_graph(label, shards, beam_args)


@dataclass(frozen=True)
class _Outcome:
    """What is done once a run ends; `old` names the shards that were done before it."""

    statistics: Mapping[str, Mapping[str, Any]]
    old: Collection[str]
    account: Account
    reality: Reality
    seconds: float


def _outcome(
    plan: Plan,
    records: Mapping[str, int],
    bundle: Bundle,
    on_alarm: OnAlarm,
    nights: Nights,
    seconds: float,
) -> _Outcome:
    """Add up what is done. After an alarm, a run that is to stop has left shards undone."""
    statistics = plan.statistics()
    stopped = on_alarm == "stop" and read_alarm(plan.session.output) is not None
    left = {name: n for name, n in records.items() if stopped and name not in statistics}
    begun = {name: n for name, n in records.items() if name not in left}
    account = account_for(statistics.values(), begun)
    found = compared(plan.session, bundle, statistics, left, nights)
    return _Outcome(statistics, {**plan.old, **plan.new}, account, found, seconds)


def _publish(
    session: Session[LabelsManifest], plan: Plan, options: ClassifyOptions, receipt: ClassifyReceipt
) -> None:
    """Write the receipt and the manifest, unless what they replace is better.

    It is where too much was rejected, and where an alarm left shards undone.
    """
    output = session.output
    if is_part_of_a_replacement(session, receipt.reality):
        return
    if plan.to_do or session.mode != "resume" or not _stands(output, receipt):
        output.replace(RECEIPT, json.dumps(asdict(receipt), indent=2).encode())
    check_bad_fraction(receipt.account, options.max_bad_fraction, options.output, output.path)
    plan.publish()


def _stands(output: Output, receipt: ClassifyReceipt) -> bool:
    """Whether a receipt of the same records is there, with the times of when they were labelled."""
    path = f"{output.path}/{RECEIPT}"
    if not exists(path):
        return False
    found = parse_json(output.read(RECEIPT, "the receipt"), path)
    return isinstance(found, dict) and found.get("account") == asdict(receipt.account)


def _receipt(output: str, source: Source, outcome: _Outcome) -> ClassifyReceipt:
    statistics, bundle = outcome.statistics.values(), source.bundle
    graph = bundle.policy.graph
    statuses, exits = Counter[str](), Counter[str]()
    for shard in statistics:
        statuses.update(shard["statuses"])
        exits.update(shard["exits"])
    ran = statuses[OK] + statuses[NONFINITE]
    cost = sum(shard["cost"] for shard in statistics) / ran if ran else 0.0
    full = graph.cost((graph.full,))
    new = [shard for shard in statistics if shard["shard"] not in outcome.old]
    newly_labelled = sum(shard["records"] for shard in new)
    begun = min((shard["started"] for shard in new), default=0.0)
    busy = max((shard["finished"] for shard in new), default=0.0) - begun
    return ClassifyReceipt(
        output=output,
        shards=len(statistics),
        records=sum(shard["records"] for shard in statistics),
        statuses=dict(statuses),
        account=outcome.account,
        exits={answer: exits[answer] for answer in graph.answers if exits[answer]},
        unit=graph.unit,
        cost=cost,
        full=graph.full,
        full_cost=full,
        speedup=full / cost if cost else None,
        newly_labelled=newly_labelled,
        seconds=outcome.seconds,
        images_per_second=newly_labelled / busy if busy else 0.0,
        time_spent=time_spent(new),
        policy=bundle.digest,
        version=source.version,
        promise=bundle.evidence,
        reality=outcome.reality,
    )
