"""adalabel extract: run every network over shards of images, and keep all answers in a table."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.accounting import Account, account_for, check_bad_fraction
from pipelines.job_graph import JobGraph, job_graph
from pipelines.options import DryRunOptions, RunOptions, ShardOptions
from pipelines.output import Session, opened
from pipelines.run_shards import count_all, run_shards
from pipelines.table import TABLE, extended
from pipelines.table_plan import Plan, by_shard
from pipelines.time_spent import time_lines, time_spent
from policy.errors import InputError
from policy.table_manifest import TableManifest
from transforms.commit import Output
from transforms.extract import Extract, TableOptions
from transforms.networks_file import NetworksFile, read_networks
from transforms.shards import Shard
from transforms.stages import Engine


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(ShardOptions, DryRunOptions, RunOptions):
    """Run every network over labelled shards; keep answers and pooled features in a table."""

    networks: str
    """The networks file (TOML)."""
    output: str
    """The table's folder; what it already holds is kept."""
    topk: int = 0
    """Classes kept for every image; 0: all (features of single classes need all)."""

    def __post_init__(self) -> None:
        """Refuse to keep less than nothing."""
        super().__post_init__()
        if self.topk < 0:
            raise InputError(f"--topk {self.topk}: wanted 0 (all) or more")


@dataclass(frozen=True)
class ExtractReceipt:
    """What a run did, and what became of the records of its shards, by this run or an earlier one.

    `unlabelled` counts those without a label. `time_spent` are this run's seconds of all workers by
    what they did.
    """

    output: str
    shards: int
    records: int
    networks_run: tuple[str, ...]
    account: Account
    unlabelled: int
    seconds: float
    time_spent: dict[str, float]

    def text(self) -> str:
        """For people."""
        return "\n".join([self._text(), *time_lines(self.time_spent)])

    def _text(self) -> str:
        ran = ", ".join(self.networks_run) or "nothing (all done before)"
        rejected = self.account.rejected
        return (
            f"{self.output}: {self.shards} shards; ran {ran} in {self.seconds:.1f} s; "
            + self.account.text()
            + (f"\n  see status and error in {self.output}/answers" if rejected else "")
            + (f"\n  {self.unlabelled} without a label, useless to fit" if self.unlabelled else "")
        )


def run(options: ExtractOptions, beam_args: Sequence[str]) -> ExtractReceipt:
    """Extract what the table lacks, then write its manifest."""
    networks = read_networks(options.networks)
    shards = options.shards()
    options.check_reach((options.output, *(shard.path for shard in shards)))
    engine = Engine(networks, options.launcher.device)
    with opened(options.output, options.mode, TABLE, table_made_by(options, engine)) as session:
        records = count_all(shards)
        plan = planned(session, options, engine, records, shards)
        del engine  # each worker loads its own
        start = time.monotonic()
        if plan.to_do:
            _run(options, networks, plan, records, beam_args)
        markers = plan.markers()
        statistics = by_shard(markers.values())
        account = account_for(statistics, {shard.name: records[shard.name] for shard in shards})
        receipt = ExtractReceipt(
            output=options.output,
            shards=len(shards),
            records=account.seen,
            networks_run=plan.networks,
            account=account,
            unlabelled=sum(shard["unlabelled"] for shard in statistics),
            seconds=time.monotonic() - start,
            time_spent=time_spent(plan.made_now()),
        )
        _publish(plan, options, account)
    return receipt


def job(options: ExtractOptions, shards: int, beam_args: Sequence[str]) -> JobGraph:
    """What `run` would hand to its runner for so many shards; nothing is read but the networks."""
    networks = read_networks(options.networks)
    names = tuple(network.name for network in networks.network)
    made_by = dict.fromkeys(names, options.made_by)
    wanted = TableOptions(Output(options.output, "RUN"), options.topk or None, made_by)
    return job_graph(Extract(networks, names, wanted, options.worker), shards, beam_args)


def table_made_by(options: ExtractOptions, engine: Engine) -> dict[str, str]:
    """What must be the same in all of a table; what decides one network's answers is apart."""
    names = hashlib.sha256("\n".join(engine.class_names).encode()).hexdigest()[:16]
    return {"--topk": str(options.topk), "class list": names, **options.made_by}


def planned(
    session: Session[TableManifest],
    options: ExtractOptions,
    engine: Engine,
    records: Mapping[str, int],
    shards: Sequence[Shard],
) -> Plan:
    """What a run has to do; raises InputError where it would be refused."""
    known = None if options.mode == "overwrite" else session.known
    extension = extended(options.output, known, engine, records, options.topk or None)
    made_by = {
        name: {"fingerprint": made, "--topk": str(options.topk), **options.made_by}
        for name, made in engine.fingerprints.items()
    }
    return Plan.of(session, extension, shards, made_by)


def _run(
    options: ExtractOptions,
    networks: NetworksFile,
    plan: Plan,
    records: Mapping[str, int],
    beam_args: Sequence[str],
) -> None:
    output = plan.session.output
    wanted = TableOptions(output, options.topk or None, plan.made_by)
    transform = Extract(networks, plan.networks, wanted, options.worker)
    watched = (f"{output.path}/shards/{plan.networks[-1]}", ".json")
    todo = {shard: records[shard.name] for shard in plan.to_do}
    run_shards(transform, todo, output, watched, beam_args)


def _publish(plan: Plan, options: ExtractOptions, account: Account) -> None:
    """Write the manifest, unless too much was rejected."""
    path = plan.session.output.path
    check_bad_fraction(account, options.max_bad_fraction, options.output, f"{path}/answers")
    plan.publish()
