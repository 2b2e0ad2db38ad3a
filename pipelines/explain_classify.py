"""adalabel classify --dry-run: which shards would be labelled, and what that would take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from pipelines.classify import ClassifyOptions, job, made_by
from pipelines.dry_run import DryRun, Todo
from pipelines.labels import LABELS, Plan, done_and_outdated
from pipelines.output import looked_at
from pipelines.policy_source import read_policy
from pipelines.pricing import Pricing, Quote, check_costs, pricing
from pipelines.run_shards import count_all
from policy.bundle import Bundle
from policy.costs import Calibration, read_costs
from policy.errors import InputError
from policy.graph import StageGraph
from policy.mixture import answers_used
from policy.offers import audit_cost, expected_cost
from transforms.label import check_fits, load_for_policy
from transforms.networks_file import read_networks
from transforms.shards import Shard

_UNKNOWN_STAGES = (
    "the policy does not say how often its stages run (it is of an older version, or of your own "
    "making), so they are counted for every image: it takes at most that"
)


def run(options: ClassifyOptions, beam_args: Sequence[str]) -> DryRun:
    """Look at everything as a run would, and hold nothing: a run may go on meanwhile."""
    return looked_over("classify", options, options.shards(), beam_args)


def looked_over(
    command: str, options: ClassifyOptions, shards: Sequence[Shard], beam_args: Sequence[str]
) -> DryRun:
    """What labelling these shards would take."""
    networks, source = read_networks(options.networks), read_policy(options.policy)
    options.check_reach((options.output, *(shard.path for shard in shards)))
    start = time.monotonic()
    engine = load_for_policy(networks, source.bundle, replace(options.worker, device="cpu"))
    check_fits(source.bundle, engine)
    loaded = time.monotonic() - start
    counts = count_all(shards)
    records = {shard: counts[shard.name] for shard in shards}
    todo = labels_to_do(options, made_by(options, source), records)
    told = explained(command, options, source.bundle, todo, (loaded, tuple(beam_args)))
    if options.on == "local":
        return told
    return replace(told, job=job(options, todo.shards, beam_args))


def labels_to_do(
    options: ClassifyOptions, makers: Mapping[str, str], records: Mapping[Shard, int]
) -> Todo:
    """What a run would have to do of these shards, which hold so many records each."""
    session = looked_at(options.output, options.mode, LABELS, makers)
    refused = None
    try:
        plan = Plan.of(session, records, makers)
    except InputError as error:  # shards that changed
        refused = str(error)
        plan = Plan.of(replace(session, mode="retry-failed"), records, makers)
    _, changed = done_and_outdated(session.place, records, makers)
    return Todo.of(records, plan.to_do, len(changed), refused)


def explained(
    command: str,
    options: ClassifyOptions,
    bundle: Bundle,
    todo: Todo,
    run: tuple[float, tuple[str, ...]],
) -> DryRun:
    """What labelling would take; `run`: seconds of loading the networks, and Beam's flags."""
    graph, calibration = _priced(options, bundle)
    prices = pricing(options, graph.unit, calibration, options.usd_per_hour, run[1])
    stages, warnings = _stages(bundle)
    return DryRun(
        command=command,
        output=options.output,
        todo=todo,
        stages=stages,
        unit=graph.unit,
        quotes=tuple(_quotes(options, bundle, graph, prices, todo.records)),
        device=prices.device,
        load_seconds=run[0],
        assumed=prices.assumed,
        warnings=(*warnings, *prices.warnings),
        beam_args=run[1],
    )


def _priced(options: ClassifyOptions, bundle: Bundle) -> tuple[StageGraph, Calibration]:
    """The policy's graph at the costs of --costs, or at those it was fitted with."""
    graph = bundle.policy.graph
    if options.costs is not None:
        costs = read_costs(options.costs)
        check_costs(costs, bundle.fingerprints)
        return graph.with_costs(costs.costs, costs.unit), costs.calibration
    known = bundle.evidence.calibration if bundle.evidence else None
    return graph, known or Calibration()


def _stages(bundle: Bundle) -> tuple[dict[str, float], tuple[str, ...]]:
    """The share of the images that each stage runs for; at most, where that was not measured."""
    if bundle.evidence and bundle.evidence.stages:
        return bundle.evidence.stages, ()
    policy = bundle.policy
    names = [stage.name for stage in policy.graph.needed(answers_used(policy))]
    return dict.fromkeys(names, 1.0), (_UNKNOWN_STAGES,)


def _quotes(
    options: ClassifyOptions, bundle: Bundle, graph: StageGraph, prices: Pricing, records: int
) -> list[Quote]:
    """The policy given, others of the same fit by cost, and then the full network alone."""
    evidence, full = bundle.evidence, bundle.policy.graph.full  # other prices do not change it
    has_full = any(full == name or full.startswith(f"{name}.") for name in bundle.fingerprints)
    fraction = options.audit_fraction if has_full else 0.0
    stages, _ = _stages(bundle)
    cost = expected_cost(graph, stages) + audit_cost(graph, stages, fraction, full)
    quotes = [prices.quote("this policy", cost, records, evidence.regret if evidence else None)]
    offers = evidence.offers if evidence else ()
    for cost, other in sorted(
        ((expected_cost(graph, offer.stages), offer) for offer in offers), key=itemgetter(0)
    ):
        name = f"--budget {cost:.4g}" if options.costs is None else f"fitted at {other.cost:.4g}"
        audited = cost + audit_cost(graph, other.stages, fraction, full)
        quotes.append(prices.quote(name, audited, records, other.regret))
    return [*quotes, prices.quote(f"always {full}", graph.cost((full,)), records, 0.0)]
