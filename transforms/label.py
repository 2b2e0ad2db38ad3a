"""Labelling: route every image of a shard, and write its rows and statistics."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import apache_beam as beam
import torch
from apache_beam.utils.shared import Shared

from policy.bundle import Bundle, read_bundle
from policy.errors import InputError
from policy.fingerprints import difference
from policy.mixture import answers_used
from policy.rules import always
from policy.table import IMPORTED
from transforms.audit import AuditPlan
from transforms.commit import Output
from transforms.label_rows import Guard, LabelStep
from transforms.networks_file import NetworksFile
from transforms.route import Router
from transforms.shard_loop import Row
from transforms.shards import Shard
from transforms.stages import Engine
from transforms.watch import Watch, Watcher
from transforms.work import WorkerOptions, on_workers


def load_for_policy(networks: NetworksFile, bundle: Bundle, worker: WorkerOptions) -> Engine:
    """Load the networks a policy was fitted for, and no others."""
    imported = [name for name, made in bundle.fingerprints.items() if made.startswith(IMPORTED)]
    if imported:
        raise InputError(
            f"the policy was fitted on imported predictions of {imported[0]!r}, which no network "
            "here is known to make; extract a table with your networks and fit on that"
        )
    if worker.threads:
        torch.set_num_threads(worker.threads)
    names = tuple(bundle.fingerprints)
    return Engine(networks, worker.device, bundle.heads, names, worker.compile_for)


def check_fits(bundle: Bundle, engine: Engine) -> None:
    """Raise InputError unless the policy was fitted for exactly these networks."""
    wanted, found = bundle.fingerprints, engine.fingerprints
    differs = difference("the policy was fitted for", wanted, "the networks file gives", found)
    if differs:
        raise InputError(
            f"{differs} Use the networks file it was fitted with, or extract and fit again."
        )
    policy = bundle.policy
    for stage in policy.graph.needed(answers_used(policy)):
        ours = engine.unpriced.stage.get(stage.name)
        if ours is None or ours.needs != stage.needs:
            raise InputError(
                f"the policy runs stage {stage.name!r} on {stage.needs}, which these networks do "
                "not have; extract and fit again"
            )


@dataclass(frozen=True)
class LabelOptions:
    """Where labels go, with how many classes, and all that decides them, by name.

    `audit` and `watch` compare them with the promise; None for not.
    """

    output: Output
    topk: int
    made_by: Mapping[str, str]
    audit: AuditPlan | None = None
    watch: Watch | None = None


@dataclass(frozen=True)
class Loaded:
    """What all threads of a worker share."""

    bundle: Bundle
    engine: Engine

    @property
    def decode_side(self) -> int | None:
        """The engine's."""
        return self.engine.decode_side


def load_checked(networks: NetworksFile, bundle: Bundle, worker: WorkerOptions) -> Loaded:
    """A policy and its networks, which are those it was fitted for."""
    engine = load_for_policy(networks, bundle, worker)
    check_fits(bundle, engine)
    return Loaded(bundle, engine)


def _load(networks: NetworksFile, policy: str, worker: WorkerOptions) -> Loaded:
    """Load what the launcher has checked; a worker's own code may differ from the launcher's."""
    return load_checked(networks, read_bundle(policy), worker)


def _make_step(
    options: LabelOptions, loaded: Loaded, worker: WorkerOptions, pool: Executor
) -> LabelStep:
    size, topk = worker.batch_size, options.topk
    policy, engine = loaded.bundle.policy, loaded.engine
    router = Router(policy, engine, size, topk, pool, options.audit)
    guard = None
    if options.watch:
        graph, full = policy.graph, None
        if options.watch.on_alarm == "full":
            full = Router(always(graph, graph.full), engine, size, topk, pool)
        guard = Guard(Watcher(options.watch, options.output), full)
    return LabelStep(router, options.output, options.made_by, guard)


@dataclass
class Label(beam.PTransform[beam.pvalue.PCollection[Shard], beam.pvalue.PCollection[Row]]):
    """PCollection[Shard] -> PCollection[dict], the statistics of each shard labelled.

    `policy` is its folder: workers read it, as the heads of exits may have megabytes. A worker in
    the process that has put what it needs into `shared` loads nothing.
    """

    networks: NetworksFile
    policy: str
    options: LabelOptions
    worker: WorkerOptions
    shared: Shared = field(default_factory=Shared)

    def expand(self, shards: beam.pvalue.PCollection[Shard]) -> beam.pvalue.PCollection[Row]:
        """Spread the shards over workers, then label each."""
        load = partial(_load, self.networks, self.policy)
        step = partial(_make_step, self.options)
        work = on_workers(load, step, self.worker, self.shared)
        done: beam.pvalue.PCollection[Row] = shards | "Spread" >> beam.Reshuffle() | "Label" >> work
        return done
