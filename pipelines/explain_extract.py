"""adalabel extract --dry-run: which shards lack which networks, and what that would take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipelines.dry_run import DryRun, Todo
from pipelines.extract import ExtractOptions, job, planned, table_made_by
from pipelines.output import looked_at
from pipelines.pricing import check_costs, pricing
from pipelines.run_shards import count_all
from pipelines.table import TABLE
from pipelines.table_plan import Plan
from policy.costs import Calibration, read_costs
from policy.errors import InputError
from policy.graph import StageGraph
from policy.offers import expected_cost
from transforms.networks_file import read_networks
from transforms.shards import Shard
from transforms.stages import Engine


def run(options: ExtractOptions, beam_args: Sequence[str]) -> DryRun:
    """Look at everything as a run would, and hold nothing: a run may go on meanwhile."""
    networks, shards = read_networks(options.networks), options.shards()
    options.check_reach((options.output, *(shard.path for shard in shards)))
    start = time.monotonic()
    engine = Engine(networks, "cpu")
    loaded = time.monotonic() - start
    counts = count_all(shards)
    plan, todo = _looked(options, engine, {shard: counts[shard.name] for shard in shards})
    graph, calibration = _priced(options, engine)
    names = {name for network in plan.networks for name in (network, *engine.trunks[network])}
    stages = {stage.name: 1.0 for stage in graph.needed(names)}
    prices = pricing(options, graph.unit, calibration, options.usd_per_hour, beam_args)
    networks_run = ", ".join(plan.networks) or "nothing"
    cost = expected_cost(graph, stages)
    return DryRun(
        command="extract",
        output=options.output,
        todo=todo,
        stages=stages,
        unit=graph.unit,
        quotes=(prices.quote(networks_run, cost, todo.records),),
        device=prices.device,
        load_seconds=loaded,
        assumed=prices.assumed,
        warnings=prices.warnings,
        beam_args=tuple(beam_args),
        job=None if options.on == "local" else job(options, todo.shards, beam_args),
    )


def _looked(
    options: ExtractOptions, engine: Engine, records: Mapping[Shard, int]
) -> tuple[Plan, Todo]:
    shards, counts = tuple(records), {shard.name: n for shard, n in records.items()}
    session = looked_at(options.output, options.mode, TABLE, table_made_by(options, engine))
    refused = None
    try:
        plan = planned(session, options, engine, counts, shards)
    except InputError as error:  # shards that changed
        refused = str(error)
        again = replace(session, mode="retry-failed")
        plan = planned(again, options, engine, counts, shards)
    found = plan.done(session.place)
    changed = {at[1] for at, says in found.items() if not plan.is_current(at, says)}
    return plan, Todo.of(records, plan.to_do, len(changed), refused)


def _priced(options: ExtractOptions, engine: Engine) -> tuple[StageGraph, Calibration]:
    """The stages at the costs of --costs, or in GMAC."""
    if options.costs is None:
        return engine.graph, Calibration()
    costs = read_costs(options.costs)
    check_costs(costs, engine.fingerprints)
    return engine.graph.with_costs(costs.costs, costs.unit), costs.calibration
