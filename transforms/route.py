"""The router: really runs only the stages that a policy asks for, on full batches.

Images wait in one queue per trail and next answer, and per arm of a mixture of policies. A queue is
run when it holds a full batch, of images of any shard, and before that only where it is not filled
for long, or too much waits in all; what is left in the queues is run when `flush` says that no more
will come.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from policy.mixture import Routing, answers_used
from policy.rows import NONFINITE
from policy.rules import STOP
from transforms.audit import Auditor, AuditPlan
from transforms.doing import POLICY, doing
from transforms.images import InputSpec
from transforms.prepare import Prepared
from transforms.queues import PATIENCE, Batch, Queues
from transforms.remaining import Begun, Remaining
from transforms.routed import Routed, Trail
from transforms.stages import Engine

_Place = tuple[int, Trail, str]
"""Where images wait: the arm of the policy they follow, their trail, and the next answer."""


class Router:
    """Runs a policy over prepared images; knows nothing of shards or Beam.

    `inputs` are the inputs to prepare for every image: those of the policy's first answer. Inputs
    of later answers, `later`, are made from the decoded image, for the images that get there, on
    `pool`, or were made before.
    """

    def __init__(
        self,
        policy: Routing,
        engine: Engine,
        batch_size: int,
        topk: int,
        pool: Executor,
        audit: AuditPlan | None = None,
    ) -> None:
        """Label with the `topk` best classes, running batches of `batch_size`."""
        self.policy = policy
        self.graph = policy.graph
        self.engine = engine
        self.batch_size = batch_size
        needed = [arm.classes_needed for arm in policy.arms]
        least = max(topk, audit.k) if audit else topk
        self.k = max([least, *(k for k in needed if k)]) if None not in needed else None
        self.topk = topk
        self.remaining = Remaining(engine, self.k, pool)
        self.auditor = (
            Auditor(audit, self.graph, self.remaining, batch_size, topk) if audit else None
        )
        first = {stage.name for stage in self.graph.needed(arm.start for arm in policy.arms)}
        self.inputs: Mapping[str, InputSpec] = {
            stage: spec for stage, spec in engine.inputs.items() if stage in first
        }
        used = answers_used(policy) | ({self.graph.full} if audit else frozenset())
        self.later: Mapping[str, InputSpec] = {
            stage.name: engine.inputs[stage.name]
            for stage in self.graph.needed(used)
            if stage.name in engine.inputs and stage.name not in first
        }
        self._plans: dict[_Place, tuple[frozenset[str], frozenset[str]]] = {}
        self._depth = {answer: i for i, answer in enumerate(self._order())}
        self._first: list[list[Prepared]] = [[] for _ in policy.arms]
        self._late = [0] * len(self._first)  # batches that other arms began meanwhile
        self._queues: Queues[_Place] = Queues(batch_size)
        self._begun: deque[tuple[_Place, list[Begun]]] = deque()

    def _order(self) -> list[str]:
        """Every answer in use, each before those that may follow it."""
        used = answers_used(self.policy)
        return [
            answer
            for arm in self.policy.arms
            for answer in self.graph.reachable(arm.start)
            if answer in used
        ]

    def feed(self, item: Prepared) -> Iterator[Routed]:
        """Take one image in; yield what could be finished with it."""
        arm = int(self.policy.arm_of([item.key])[0]) if len(self._first) > 1 else 0
        self._first[arm].append(item)
        if len(self._first[arm]) >= self.batch_size:
            self._queues.fed()
            yield from self._run_first(arm)
            yield from self._run_late()
            yield from self._run_queues(self._queues.ready)
            if self.auditor:
                yield from self.auditor.fed()

    def flush(self) -> Iterator[Routed]:
        """Finish everything, first answers first, so that late batches are as full as can be."""
        for arm, waiting in enumerate(self._first):
            if waiting:
                yield from self._run_first(arm)
        yield from self._run_queues(self._queues.waiting)
        while self._begun:
            yield from self._end_oldest()
            yield from self._run_queues(self._queues.waiting)
        if self.auditor:
            yield from self.auditor.flush()

    def _run_late(self) -> Iterator[Routed]:
        """Run first answers that few images begin with, once these have waited for long."""
        for arm, waiting in enumerate(self._first):
            self._late[arm] += bool(waiting)
            if self._late[arm] >= PATIENCE:
                yield from self._run_first(arm)

    def _run_first(self, arm: int) -> Iterator[Routed]:
        batch, self._first[arm] = Batch(self._first[arm]), []
        self._late[arm] = 0
        yield from self._run((arm, (), self.policy.arms[arm].start), [batch])

    def _run_queues(self, which: Callable[[], list[_Place]]) -> Iterator[Routed]:
        while ready := which():
            place = min(ready, key=lambda at: self._depth[at[2]])
            yield from self._run(place, self._queues.take(place))

    @torch.inference_mode()
    def _run(self, place: _Place, waiting: list[Batch]) -> Iterator[Routed]:
        """Begin to get one more answer for these images; end what has been under way for longer."""
        _, before, answer = place
        items = [item for batch in waiting for item in batch.items]
        done = frozenset(stage.name for stage in self.graph.needed(before))
        begin = partial(self.remaining.begin, done, answer, waiting)
        parts, failures = self.engine.careful.run(answer, len(items), begin)
        cost = self.graph.cost(before)
        for bad in failures:
            yield Routed([items[bad.row]], before, cost, None, bad.status, bad.error)
        self._begun.append((place, [part.value for part in parts]))
        while len(self._begun) > self.engine.in_flight:
            yield from self._end_oldest()

    @torch.inference_mode()
    def _end_oldest(self) -> Iterator[Routed]:
        """Wait for the answers begun first, then send each image where the policy says."""
        place, begun = self._begun.popleft()
        for part in begun:
            batch = self.engine.careful.wait(part.answer, part.end)
            with doing(POLICY):
                finished = self._send(place, batch)
            yield from finished

    def _send(self, place: _Place, batch: Batch) -> list[Routed]:
        """Send each image, with its new answer, where the policy says; those that are finished."""
        arm, before, answer = place
        trail, policy = (*before, answer), self.policy.arms[arm]
        finished: list[Routed] = []
        for_audit = self.auditor.ahead(trail)[0] if self.auditor else frozenset()
        finite = batch.got[answer].finite
        if not finite.all():
            bad = batch.only(()).take(np.flatnonzero(~finite))
            answers, error = bad.got[answer].top(self.topk), f"{answer} gave NaN or infinity"
            cost = self.graph.cost(trail)
            finished.append(Routed(bad.items, trail, cost, answers, NONFINITE, error))
            batch = batch.take(np.flatnonzero(finite))
        for action, rows in policy.split(batch.got) if batch.items else ():
            if action == STOP:
                finished += self._finish(arm, trail, batch.only(for_audit).take(rows))
            else:
                self._wait((arm, trail, action), batch, rows)
        return finished

    def _finish(self, arm: int, trail: Trail, batch: Batch) -> Iterable[Routed]:
        """Label images whose trail ends here."""
        label = self.policy.arms[arm].label(batch.got)
        if self.auditor:
            return self.auditor.finish(batch, trail, label)
        return [Routed(batch.items, trail, self.graph.cost(trail), label.top(self.topk))]

    def _wait(self, place: _Place, batch: Batch, rows: NDArray[np.intp]) -> None:
        """Queue these images for an answer with only what the rest of their way may need."""
        tensors, inputs = self._ahead(place)
        all_inputs, audited = inputs, np.zeros(len(rows), dtype=bool)
        if self.auditor:
            for_audit = self.auditor.ahead(place[1])
            tensors, all_inputs = tensors | for_audit[0], inputs | for_audit[1]
            if all_inputs > inputs:
                audited = self.auditor.chosen([batch.items[row] for row in rows])
        kept = batch.only(tensors).take(rows)
        items = [
            self._stripped(item, all_inputs if more else inputs)
            for item, more in zip(kept.items, audited.tolist(), strict=True)
        ]
        self._queues.put(place, replace(kept, items=items))

    def _stripped(self, item: Prepared, inputs: frozenset[str]) -> Prepared:
        """An image with what these inputs take, and nothing else."""
        return replace(
            item,
            image=item.image if inputs - self.inputs.keys() else None,
            # made beforehand where another arm starts with it
            pixels={name: pixels for name, pixels in item.pixels.items() if name in inputs},
        )

    def _ahead(self, place: _Place) -> tuple[frozenset[str], frozenset[str]]:
        """What may still be needed on the way to an answer and beyond: tensors, and inputs."""
        if place not in self._plans:
            arm, trail, answer = place
            done = {stage.name for stage in self.graph.needed(trail)}
            later = self.graph.needed(self.policy.arms[arm].reachable(answer))
            ahead = [stage for stage in later if stage.name not in done]
            self._plans[place] = (
                frozenset(need for stage in ahead for need in stage.needs),
                frozenset(stage.name for stage in ahead if stage.name in self.engine.inputs),
            )
        return self._plans[place]
