"""Extraction: every answer and every exit's pooled features for every image, as table files."""

import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers
from policy.rows import account, table_bytes
from policy.table_manifest import answers_path, features_path, marker_path
from transforms.collect import Blocks
from transforms.commit import Output
from transforms.doing import COPY, doing, here, of_stage
from transforms.done import Says, commit_shard, done_before
from transforms.extract_table import (
    Extracted,
    Outcome,
    answers_table,
    features_table,
    origins,
    outcomes_of,
    unlabelled,
)
from transforms.images import InputSpec
from transforms.networks_file import NetworksFile
from transforms.prepare import Prepared
from transforms.shard_loop import Placed, Row
from transforms.shards import Shard
from transforms.stages import DECODE, Engine
from transforms.work import WorkerOptions, on_workers


@dataclass(frozen=True)
class TableOptions:
    """Where answers go, with how many classes (None: all), and what decides them, by network."""

    output: Output
    topk: int | None
    made_by: Mapping[str, Mapping[str, str]]


class ExtractStep:
    """Runs every stage of an engine on full batches; writes one file per answer and per trunk."""

    def __init__(self, engine: Engine, options: TableOptions, batch_size: int) -> None:
        """Write the answers of all networks of `engine`."""
        self.engine = engine
        self.options = options
        self.batch_size = batch_size
        self.inputs = engine.inputs
        self.later: Mapping[str, InputSpec] = {}
        self._waiting: list[Prepared] = []

    def take(self, item: Prepared) -> Iterator[Placed]:
        """Run a batch as soon as there is a full one; a label that is no class is rejected."""
        wrong = self._label_error(item)
        if wrong is not None:
            yield [item], Extracted([item.key], [None], {}, ("label", wrong))
            return
        self._waiting.append(item)
        if len(self._waiting) >= self.batch_size:
            yield from self.flush()

    def flush(self) -> Iterator[Placed]:
        """Run what is waiting as one last, smaller batch."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        inputs: dict[str, torch.Tensor] = {}
        outcomes: dict[str, Outcome] = {}
        for network, trunks in self.engine.trunks.items():
            work = partial(self._run, network, batch, inputs)
            parts, failures = self.engine.careful.run(network, len(batch), work)
            outcomes |= outcomes_of(len(batch), network, trunks, parts, failures)
        keys, labels = [item.key for item in batch], [item.label for item in batch]
        yield batch, Extracted(keys, labels, outcomes)

    @torch.inference_mode()
    def _run(
        self,
        network: str,
        batch: list[Prepared],
        inputs: dict[str, torch.Tensor],
        start: int,
        stop: int,
    ) -> tuple[Answers, dict[str, NDArray[np.float16]]]:
        """A network's answer and its trunks' features for some images of a batch.

        `inputs` keeps those of the whole batch for the next network that wants the same.
        """
        if stop - start < len(batch):
            inputs = {}
        trunks, made = self.engine.trunks[network], {}
        for stage in self.engine.unpriced.needed((network, *trunks)):
            if stage.name in self.inputs:
                if stage.name not in inputs:
                    pixels = [item.pixels[stage.name] for item in batch[start:stop]]
                    with doing(COPY):
                        inputs[stage.name] = self.engine.input_batch(stage.name, pixels)
                made[stage.name] = inputs[stage.name]
            elif stage.name not in (network, DECODE):
                with doing(of_stage(stage.name)):
                    made[stage.name] = self.engine.run(stage.name, made)
        with doing(of_stage(network)):
            features = {trunk: self.engine.features(made[trunk]) for trunk in trunks}
            return self.engine.answer(network, made, self.options.topk), features

    def reject(self, item: Prepared) -> Extracted:
        """Nothing but where the record came from and why there is no answer."""
        return Extracted([item.key], [None], {}, (item.status, item.error))

    def begin(self, _shard: Shard) -> bool:
        """All shards are read."""
        return True

    def done(self, shard: Shard) -> Says | None:
        """The statistics of a shard that is done for every network of the engine."""
        done: Says | None = None
        for network in self.engine.trunks:
            origin = self._origin(network, shard)
            done = done_before(self.options.output, marker_path(network, shard.name), origin)
            if done is None:
                return None
        return done

    def write(self, shard: Shard, blocks: Blocks[Extracted], started: float) -> Says:
        """Write the shard's files of every network, and after each network's what marks it done."""
        done: Says = {}
        shared, without = origins(blocks), unlabelled(blocks)
        for network, trunks in self.engine.trunks.items():
            answers = answers_table(blocks, network, shared)
            says = self._origin(network, shard) | {
                "shard": shard.name,
                "unlabelled": without,
                **account(answers),
            }
            files = {answers_path(network, shard.name): table_bytes(answers, says)}
            for trunk in trunks:
                features = features_table(blocks, trunk, shared)
                files[features_path(trunk, shard.name)] = table_bytes(features, says)
            times = {"started": started, "finished": time.time(), "seconds": here().take()}
            marker = marker_path(network, shard.name)
            done = commit_shard(self.options.output, marker, files, says, times)
        return done

    def _origin(self, network: str, shard: Shard) -> dict[str, Any]:
        return {"made_by": self.options.made_by[network], "input": shard.identity}

    def _label_error(self, item: Prepared) -> str | None:
        classes = len(self.engine.class_names)
        if item.label is not None and item.label >= classes:
            return f"label {item.label} is out of range; the class list has {classes} names"
        return item.label_error


@torch.inference_mode()
def run_all(
    engine: Engine, pixels: Mapping[str, list[NDArray[np.uint8]]], topk: int | None
) -> tuple[dict[str, Answers], dict[str, NDArray[np.float16]]]:
    """Every answer and every trunk's pooled features for one batch, given its input pixels.

    The obvious way, without care for items that fail; what ExtractStep writes agrees with it.
    """
    made = {name: engine.input_batch(name, images) for name, images in pixels.items()}
    answers, features = {}, {}
    trunks = {trunk for trunks in engine.trunks.values() for trunk in trunks}
    for stage in engine.unpriced.stages:
        if stage.answers:
            answers[stage.name] = engine.answer(stage.name, made, topk)
        elif stage.name not in made and stage.name != DECODE:
            made[stage.name] = engine.run(stage.name, made)
        if stage.name in trunks:
            features[stage.name] = engine.features(made[stage.name])
    return answers, features


def load_engine(
    networks: NetworksFile, only: Collection[str] | None, worker: WorkerOptions
) -> Engine:
    """Load networks as a worker does, with torch's threads set."""
    if worker.threads:
        torch.set_num_threads(worker.threads)
    return Engine(networks, worker.device, only=only, compile_for=worker.compile_for)


def _make_step(
    options: TableOptions, engine: Engine, worker: WorkerOptions, _pool: Executor
) -> ExtractStep:
    return ExtractStep(engine, options, worker.batch_size)


@dataclass
class Extract(beam.PTransform[beam.pvalue.PCollection[Shard], beam.pvalue.PCollection[Row]]):
    """PCollection[Shard] -> PCollection[dict], the statistics of each shard written.

    Only the networks named in `only` are run.
    """

    networks: NetworksFile
    only: tuple[str, ...]
    options: TableOptions
    worker: WorkerOptions

    def expand(self, shards: beam.pvalue.PCollection[Shard]) -> beam.pvalue.PCollection[Row]:
        """Spread the shards over workers, then extract each."""
        load = partial(load_engine, self.networks, self.only)
        work = on_workers(load, partial(_make_step, self.options), self.worker)
        done: beam.pvalue.PCollection[Row] = (
            shards | "Spread" >> beam.Reshuffle() | "Extract" >> work
        )
        return done
