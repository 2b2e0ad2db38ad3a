"""Labelling: route every image of a shard, and write its rows and statistics."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import torch

from policy.answers import Answers
from policy.bundle import Bundle
from policy.errors import InputError
from policy.mixture import answers_used
from policy.rows import LABELS_SCHEMA, OK, account, parquet_bytes
from policy.table import IMPORTED
from transforms.commit import Output
from transforms.done import Says, commit_shard, done_before
from transforms.networks_file import NetworksFile
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.routed import Routed
from transforms.shards import Shard
from transforms.stages import Engine
from transforms.work import Placed, Row, ShardFn, WorkerOptions


class LabelStep:
    """Routes images and turns what comes out of the router into label rows."""

    def __init__(self, router: Router, output: Output, made_by: Mapping[str, str]) -> None:
        """Write to `output`; `made_by` names all that decides the labels."""
        self.router = router
        self.output = output
        self.made_by = dict(made_by)
        self.inputs = router.inputs
        self.keeps_images = router.keeps_images
        self.names = router.engine.class_names

    def take(self, item: Prepared) -> Iterator[Placed]:
        """Route one image; others may come out with it."""
        yield from self._place(self.router.feed(item))

    def flush(self) -> Iterator[Placed]:
        """Route all that is waiting."""
        yield from self._place(self.router.flush())

    def reject(self, item: Prepared) -> Row:
        """A row without a label."""
        return {"key": item.key, "status": item.status, "error": item.error}

    def done(self, shard: Shard) -> Says | None:
        """The statistics of a shard that is done."""
        return done_before(self.output, f"{shard.name}.json", self._origin(shard))

    def write(self, shard: Shard, rows: list[Row], started: float) -> Says:
        """Write the shard's rows, then its statistics, which mark it done."""
        says = self._origin(shard) | statistics_of(shard.name, rows)
        files = {f"{shard.name}.parquet": parquet_bytes(rows, LABELS_SCHEMA, says)}
        times = {"started": started, "finished": time.time()}
        return commit_shard(self.output, f"{shard.name}.json", files, says, times)

    def _origin(self, shard: Shard) -> dict[str, Any]:
        return {"made_by": self.made_by, "input": shard.identity}

    def _place(self, groups: Iterable[Routed]) -> Iterator[Placed]:
        for group in groups:
            yield from (
                self._rejected(group)
                if group.answers is None or group.status != OK
                else (self._rows(group, group.answers))
            )

    def _rows(self, group: Routed, answers: Answers) -> Iterator[Placed]:
        for row, item in enumerate(group.items):
            best = int(answers.classes[row, 0])
            yield (
                item,
                {
                    "key": item.key,
                    "label": best,
                    "name": self.names[best],
                    "classes": answers.classes[row],
                    "probabilities": answers.probabilities[row],
                    "answer": group.trail[-1],
                    "trail": list(group.trail),
                    "cost": group.cost,
                    "status": OK,
                },
            )

    def _rejected(self, group: Routed) -> Iterator[Placed]:
        for item in group.items:
            yield (
                item,
                {
                    "key": item.key,
                    "trail": list(group.trail),
                    "cost": group.cost,
                    "status": group.status,
                    "error": group.error,
                },
            )


def statistics_of(shard: str, rows: list[Row]) -> dict[str, Any]:
    """Counts of a shard's rows by status and by answer, and what they cost in total."""
    return {
        "shard": shard,
        **account(rows),
        "exits": dict(Counter(row["answer"] for row in rows if row["status"] == OK)),
        "got": dict(Counter(answer for row in rows for answer in row.get("trail", ()))),
        "cost": sum(row.get("cost", 0.0) for row in rows),
    }


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
    return Engine(networks, worker.device, bundle.heads, only=tuple(bundle.fingerprints))


def check_fits(bundle: Bundle, engine: Engine) -> None:
    """Raise InputError unless the policy was fitted for exactly these networks."""
    for name, wanted in bundle.fingerprints.items():
        found = engine.fingerprints[name]
        if found != wanted:
            raise InputError(
                f"the policy was fitted for network {name!r} with fingerprint {wanted}; the "
                f"networks file gives {found} (weights, input, classes, exits or factory differ). "
                "Use the networks file it was fitted with, or extract and fit again."
            )
    policy = bundle.policy
    for stage in policy.graph.needed(answers_used(policy)):
        ours = engine.graph.stage.get(stage.name)
        if ours is None or ours.needs != stage.needs:
            raise InputError(
                f"the policy runs stage {stage.name!r} on {stage.needs}, which these networks do "
                "not have; extract and fit again"
            )


@dataclass(frozen=True)
class LabelOptions:
    """Where labels go, with how many classes, and all that decides them, by name."""

    output: Output
    topk: int
    made_by: Mapping[str, str]


def _make_step(
    bundle: Bundle, options: LabelOptions, engine: Engine, worker: WorkerOptions, pool: Executor
) -> LabelStep:
    router = Router(bundle.policy, engine, worker.batch_size, options.topk, pool)
    return LabelStep(router, options.output, options.made_by)


@dataclass
class Label(beam.PTransform[beam.pvalue.PCollection[Shard], beam.pvalue.PCollection[Row]]):
    """PCollection[Shard] -> PCollection[dict], the statistics of each shard labelled."""

    networks: NetworksFile
    bundle: Bundle
    options: LabelOptions
    worker: WorkerOptions

    def expand(self, shards: beam.pvalue.PCollection[Shard]) -> beam.pvalue.PCollection[Row]:
        """Spread the shards over workers, then label each."""
        load = partial(load_for_policy, self.networks, self.bundle)
        step = partial(_make_step, self.bundle, self.options)
        done: beam.pvalue.PCollection[Row] = (
            shards
            | "Spread" >> beam.Reshuffle()
            | "Label" >> beam.ParDo(ShardFn(load, step, self.worker))
        )
        return done
