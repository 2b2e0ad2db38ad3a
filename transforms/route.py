"""The router: really runs only the stages that a policy asks for, on full batches.

Images wait in one queue per trail and next answer, and per arm of a mixture of policies. A queue is
run when it holds a full batch, of images of any shard; what is left in the queues is run when
`flush` says that no more will come.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.mixture import Routing, answers_used
from policy.rules import STOP
from transforms.images import InputSpec, fit
from transforms.prepare import Prepared
from transforms.stages import DECODE, Engine

Trail = tuple[str, ...]

_Place = tuple[int, Trail, str]
"""Where images wait: the arm of the policy they follow, their trail, and the next answer."""


@dataclass(frozen=True)
class Routed:
    """Images that left the network together: same trail, same cost per image.

    `answers` give the label, in the order of `items`: the last answer's, or the mean of the trail.
    `finite` is False where the last answer was NaN or infinite, and so no decision was made.
    """

    items: Sequence[Prepared]
    trail: Trail
    cost: float
    answers: Answers
    finite: bool = True


@dataclass(frozen=True)
class _Batch:
    """Images with the same trail, the tensors kept for later stages, and the answers so far."""

    items: list[Prepared]
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    got: dict[str, Answers] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> "_Batch":
        index = torch.from_numpy(rows)
        return _Batch(
            [self.items[row] for row in rows],
            {name: tensor[index.to(tensor.device)] for name, tensor in self.made.items()},
            {name: answers.take(rows) for name, answers in self.got.items()},
        )


def _join(parts: Sequence[_Batch]) -> _Batch:
    if len(parts) == 1:
        return parts[0]
    return _Batch(
        [item for part in parts for item in part.items],
        {name: torch.cat([part.made[name] for part in parts]) for name in parts[0].made},
        {name: concatenate(part.got[name] for part in parts) for name in parts[0].got},
    )


class _Queue:
    """Images waiting for one answer; gives them back in batches of the asked size."""

    def __init__(self) -> None:
        self.parts: deque[_Batch] = deque()
        self.waiting = 0

    def put(self, batch: _Batch) -> None:
        self.parts.append(batch)
        self.waiting += len(batch.items)

    def take(self, size: int) -> _Batch:
        taken: list[_Batch] = []
        missing = min(size, self.waiting)
        while missing:
            part = self.parts.popleft()
            if len(part.items) > missing:
                self.parts.appendleft(part.take(np.arange(missing, len(part.items))))
                part = part.take(np.arange(missing))
            taken.append(part)
            missing -= len(part.items)
            self.waiting -= len(part.items)
        return _join(taken)


class Router:
    """Runs a policy over prepared images; knows nothing of shards or Beam.

    `inputs` are the inputs to prepare for every image: those of the policy's first answer. Inputs
    of later answers are made from the decoded image, for the images that get there, on `pool`;
    `keeps_images` says whether there are such.
    """

    def __init__(
        self, policy: Routing, engine: Engine, batch_size: int, topk: int, pool: Executor
    ) -> None:
        """Label with the `topk` best classes, running batches of `batch_size`."""
        self.policy = policy
        self.graph = policy.graph
        self.engine = engine
        self.batch_size = batch_size
        self.pool = pool
        needed = [arm.classes_needed for arm in policy.arms]
        self.k = max([topk, *(k for k in needed if k)]) if None not in needed else None
        self.topk = topk
        first = {stage.name for stage in self.graph.needed(arm.start for arm in policy.arms)}
        self.inputs: Mapping[str, InputSpec] = {
            stage: spec for stage, spec in engine.inputs.items() if stage in first
        }
        self.keeps_images = any(
            stage.name in engine.inputs and stage.name not in first
            for stage in self.graph.needed(answers_used(policy))
        )
        self._plans: dict[_Place, tuple[frozenset[str], frozenset[str]]] = {}
        self._depth = {answer: i for i, answer in enumerate(self._order())}
        self._first: list[list[Prepared]] = [[] for _ in policy.arms]
        self._queues: dict[_Place, _Queue] = {}

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
        (arm,) = self.policy.arm_of([item.key])
        self._first[arm].append(item)
        if len(self._first[arm]) >= self.batch_size:
            yield from self._run_first(arm)
            yield from self._run_queues(at_least=self.batch_size)

    def flush(self) -> Iterator[Routed]:
        """Finish everything, first answers first, so that late batches are as full as can be."""
        for arm, waiting in enumerate(self._first):
            if waiting:
                yield from self._run_first(arm)
        yield from self._run_queues(at_least=1)

    def _run_first(self, arm: int) -> Iterator[Routed]:
        batch, self._first[arm] = _Batch(self._first[arm]), []
        yield from self._run((arm, (), self.policy.arms[arm].start), batch)

    def _run_queues(self, at_least: int) -> Iterator[Routed]:
        while True:
            ready = [at for at, queue in self._queues.items() if queue.waiting >= at_least]
            if not ready:
                return
            place = min(ready, key=lambda at: self._depth[at[2]])
            yield from self._run(place, self._queues[place].take(self.batch_size))

    @torch.inference_mode()
    def _run(self, place: _Place, batch: _Batch) -> Iterator[Routed]:
        """Get one more answer for a batch, then send each image where the policy says."""
        arm, before, answer = place
        self._get(before, answer, batch)
        trail, policy = (*before, answer), self.policy.arms[arm]
        cost = self.graph.cost(trail)
        finite = batch.got[answer].finite
        if not finite.all():
            bad = batch.take(np.flatnonzero(~finite))
            yield Routed(bad.items, trail, cost, bad.got[answer].top(self.topk), finite=False)
            batch = batch.take(np.flatnonzero(finite))
        for action, rows in policy.split(batch.got) if batch.items else ():
            if action == STOP:
                chosen = batch.take(rows)
                answers = policy.label(chosen.got).top(self.topk)
                yield Routed(chosen.items, trail, cost, answers)
            else:
                self._wait((arm, trail, action), batch, rows)

    def _get(self, trail: Trail, answer: str, batch: _Batch) -> None:
        """Run the stages that the answer needs and nobody has run yet; adds to the batch."""
        done = {stage.name for stage in self.graph.needed(trail)}
        for stage in self.graph.needed((answer,)):
            if stage.name in done or stage.name == DECODE:
                continue
            if stage.name in self.engine.inputs:
                pixels = self._pixels(stage.name, batch.items)
                batch.made[stage.name] = self.engine.input_batch(stage.name, pixels)
            elif stage.name == answer:
                batch.got[answer] = self.engine.answer(answer, batch.made, self.k)
            else:
                batch.made[stage.name] = self.engine.run(stage.name, batch.made)

    def _pixels(self, stage: str, items: Sequence[Prepared]) -> list[NDArray[np.uint8]]:
        if stage in self.inputs:
            return [item.pixels[stage] for item in items]
        spec = self.engine.inputs[stage]
        images = [item.image for item in items if item.image is not None]
        return list(self.pool.map(fit, images, [spec] * len(images)))

    def _wait(self, place: _Place, batch: _Batch, rows: NDArray[np.intp]) -> None:
        """Queue these images for an answer with only what the rest of their way may need."""
        tensors, inputs = self._ahead(place)
        made = {name: tensor for name, tensor in batch.made.items() if name in tensors}
        kept = _Batch(batch.items, made, batch.got).take(rows)
        decoded = bool(inputs - self.inputs.keys())
        items = [
            replace(
                item,
                image=item.image if decoded else None,
                # made beforehand where another arm starts with it
                pixels={name: pixels for name, pixels in item.pixels.items() if name in inputs},
            )
            for item in kept.items
        ]
        self._queues.setdefault(place, _Queue()).put(replace(kept, items=items))

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
