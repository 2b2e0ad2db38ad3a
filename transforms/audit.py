"""Auditing in the router: some images that stopped early go through the full network too.

Their label and trail stay as they were. They wait in queues of their own, so that no other batch is
made up differently because of them: everything else is routed exactly as without an audit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers
from policy.audit import audited, disagrees
from policy.graph import StageGraph
from policy.losses import Metric, knows
from transforms.prepare import Prepared
from transforms.queues import Batch, Queues
from transforms.remaining import Remaining
from transforms.routed import Compared, Routed, Trail

SEED = 0
"""The same in every run: an image is audited or not, whoever labels it and how often."""

_FAILED = Compared(None, disagrees=False, cost=0.0)


@dataclass(frozen=True)
class AuditPlan:
    """The fraction of images to audit, in [0, 1], and what counts as wrong."""

    fraction: float
    metric: Metric
    seed: int = SEED

    @property
    def k(self) -> int:
        """How many of the best classes must be known to compare."""
        return 5 if self.metric == "top5" else 1


class Auditor:
    """Chooses images, holds back those that stopped early, and lets them go once compared."""

    def __init__(
        self, plan: AuditPlan, graph: StageGraph, remaining: Remaining, batch_size: int, topk: int
    ) -> None:
        """`graph` gives the prices; rows get the `topk` best classes."""
        self.plan = plan
        self.graph = graph
        self.remaining = remaining
        self.topk = topk
        self._stages = graph.needed((graph.full,))
        self._queues: Queues[frozenset[str]] = Queues(batch_size)  # by the stages that were run
        self._held: dict[tuple[str, int], Routed] = {}

    def chosen(self, items: Sequence[Prepared]) -> NDArray[np.bool_]:
        """[n], which images to audit if they stop early."""
        return audited([item.key for item in items], self.plan.fraction, self.plan.seed)

    def ahead(self, trail: Trail) -> tuple[frozenset[str], frozenset[str]]:
        """What comparing after this trail, or a longer one, may take: tensors, and inputs."""
        done = self._done(trail)
        ahead = [stage for stage in self._stages if stage.name not in done]
        inputs = self.remaining.engine.inputs
        return (
            frozenset(need for stage in ahead for need in stage.needs),
            frozenset(stage.name for stage in ahead if stage.name in inputs),
        )

    def finish(self, batch: Batch, trail: Trail, label: Answers) -> Iterator[Routed]:
        """Let go of images that stopped with this label, but for those to be compared first."""
        chosen, cost, full = self.chosen(batch.items), self.graph.cost(trail), self.graph.full
        if full in trail:
            answers, rows = batch.got[full], np.flatnonzero(chosen)
            found = self._compared(label.take(rows), answers.take(rows), cost=0.0)
            audits = dict(zip(rows.tolist(), found, strict=True))
            yield Routed(batch.items, trail, cost, label.top(self.topk), audits=audits)
            return
        if not chosen.any():
            yield Routed(batch.items, trail, cost, label.top(self.topk))
            return
        self._hold(batch.take(np.flatnonzero(chosen)), trail, label.take(np.flatnonzero(chosen)))
        rows = np.flatnonzero(~chosen)
        if rows.size:
            rest = [batch.items[row] for row in rows]
            yield Routed(rest, trail, cost, label.take(rows).top(self.topk))

    def fed(self) -> Iterator[Routed]:
        """Another batch has been fed: compare where there is a full one, or one that waited."""
        self._queues.fed()
        while ready := self._queues.ready():
            yield from self._compare(ready[0], self._queues.take(ready[0]))

    def flush(self) -> Iterator[Routed]:
        """Compare all that is held back."""
        while waiting := self._queues.waiting():
            yield from self._compare(waiting[0], self._queues.take(waiting[0]))

    def _done(self, trail: Trail) -> frozenset[str]:
        """The full network's stages that were run for a trail."""
        ours = {stage.name for stage in self._stages}
        return frozenset(stage.name for stage in self.graph.needed(trail) if stage.name in ours)

    def _hold(self, batch: Batch, trail: Trail, label: Answers) -> None:
        """Queue images with what comparing takes; decoded images are not kept."""
        tensors, inputs = self.ahead(trail)
        pixels = {stage: self.remaining.pixels(stage, batch.items) for stage in inputs}
        cost, items = self.graph.cost(trail), []
        for row, item in enumerate(batch.items):
            own = {stage: made[row] for stage, made in pixels.items()}
            items.append(replace(item, image=None, pixels=own))
            self._held[item.shard, item.row] = Routed(
                items[-1:], trail, cost, label.take(np.array([row]))
            )
        made = {name: tensor for name, tensor in batch.made.items() if name in tensors}
        self._queues.put(self._done(trail), Batch(items, made))

    @torch.inference_mode()
    def _compare(self, done: frozenset[str], parts: Sequence[Batch]) -> Iterator[Routed]:
        """Run the rest of the full network, and let the images go with what it says."""
        full, items = self.graph.full, [item for part in parts for item in part.items]
        get = partial(self.remaining.get, done, full, parts)
        # a name of its own: what fails in an audit says nothing of the labels
        some, failures = self.remaining.engine.careful.run(f"audit by {full}", len(items), get)
        for bad in failures:
            yield self._released(items[bad.row], None)
        for part in some:
            answers = part.value.got[full]
            for row, item in enumerate(part.value.items):
                yield self._released(item, answers.take(np.array([row])))

    def _released(self, item: Prepared, full: Answers | None) -> Routed:
        held = self._held.pop((item.shard, item.row))
        found = _FAILED
        if full is not None and held.answers is not None:
            cost = self.graph.step_cost(held.trail, self.graph.full)
            (found,) = self._compared(held.answers, full, cost)
        label = held.answers.top(self.topk) if held.answers else None
        return replace(held, answers=label, audits={0: found})

    def _compared(self, early: Answers, full: Answers, cost: float) -> list[Compared]:
        """Compare answers; those of which too few classes are known have failed."""
        if not knows(early, self.plan.metric):
            return [replace(_FAILED, cost=cost)] * len(early)
        best = full.classes[:, 0]
        wrong = disagrees(early, best, self.plan.metric)
        return [
            Compared(int(best[row]), bool(wrong[row]), cost)
            if full.finite[row]
            else replace(_FAILED, cost=cost)
            for row in range(len(early))
        ]
