"""The router: really runs only the stages that a policy asks for, on full batches.

Images wait in one queue per trail and next answer. A queue is run when it holds a full batch, of
images of any shard; what is left in the queues is run when `flush` says that no more will come.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.rules import STOP, Policy
from transforms.images import InputSpec, fit
from transforms.prepare import Prepared
from transforms.stages import DECODE, Engine

Trail = tuple[str, ...]


@dataclass(frozen=True)
class Routed:
    """Images that left the network together: same trail, same cost per image.

    `answers` are the last answer's, in the order of `items`. `finite` is False where that answer
    was NaN or infinite, and so no decision was made.
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
        self, policy: Policy, engine: Engine, batch_size: int, topk: int, pool: Executor
    ) -> None:
        """Label with the `topk` best classes, running batches of `batch_size`."""
        self.policy = policy
        self.engine = engine
        self.batch_size = batch_size
        self.pool = pool
        needed = policy.classes_needed
        self.k = None if needed is None else max(needed, topk)
        self.topk = topk
        first = {stage.name for stage in policy.graph.needed((policy.start,))}
        self.inputs: Mapping[str, InputSpec] = {
            stage: spec for stage, spec in engine.inputs.items() if stage in first
        }
        everything = policy.graph.needed(policy.reachable(policy.start))
        self.keeps_images = any(
            stage.name in engine.inputs and stage.name not in first for stage in everything
        )
        self._plans: dict[tuple[Trail, str], tuple[frozenset[str], bool]] = {}
        self._depth = {answer: i for i, answer in enumerate(policy.reachable(policy.start))}
        self._first: list[Prepared] = []
        self._queues: dict[tuple[Trail, str], _Queue] = {}

    def feed(self, item: Prepared) -> Iterator[Routed]:
        """Take one image in; yield what could be finished with it."""
        self._first.append(item)
        if len(self._first) >= self.batch_size:
            yield from self._run_first()
            yield from self._run_queues(at_least=self.batch_size)

    def flush(self) -> Iterator[Routed]:
        """Finish everything, first answers first, so that late batches are as full as can be."""
        if self._first:
            yield from self._run_first()
        yield from self._run_queues(at_least=1)

    def _run_first(self) -> Iterator[Routed]:
        batch, self._first = _Batch(self._first), []
        yield from self._run((), self.policy.start, batch)

    def _run_queues(self, at_least: int) -> Iterator[Routed]:
        while True:
            ready = [at for at, queue in self._queues.items() if queue.waiting >= at_least]
            if not ready:
                return
            trail, answer = min(ready, key=lambda at: self._depth[at[1]])
            batch = self._queues[trail, answer].take(self.batch_size)
            yield from self._run(trail, answer, batch)

    @torch.inference_mode()
    def _run(self, trail: Trail, answer: str, batch: _Batch) -> Iterator[Routed]:
        """Get one more answer for a batch, then send each image where the policy says."""
        self._get(trail, answer, batch)
        trail = (*trail, answer)
        cost = self.policy.graph.cost(trail)
        finite = batch.got[answer].finite
        if not finite.all():
            bad = batch.take(np.flatnonzero(~finite))
            yield Routed(bad.items, trail, cost, bad.got[answer].top(self.topk), finite=False)
            batch = batch.take(np.flatnonzero(finite))
        for action, rows in self.policy.split(batch.got) if batch.items else ():
            if action == STOP:
                chosen = [batch.items[row] for row in rows]
                answers = batch.got[answer].take(rows).top(self.topk)
                yield Routed(chosen, trail, cost, answers)
            else:
                self._wait(trail, action, batch, rows)

    def _get(self, trail: Trail, answer: str, batch: _Batch) -> None:
        """Run the stages that the answer needs and nobody has run yet; adds to the batch."""
        done = {stage.name for stage in self.policy.graph.needed(trail)}
        for stage in self.policy.graph.needed((answer,)):
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

    def _wait(self, trail: Trail, answer: str, batch: _Batch, rows: NDArray[np.intp]) -> None:
        """Queue these images for an answer with only what the rest of their way may need."""
        tensors, images = self._ahead(trail, answer)
        made = {name: tensor for name, tensor in batch.made.items() if name in tensors}
        kept = _Batch(batch.items, made, batch.got).take(rows)
        items = [
            replace(item, image=item.image if images else None, pixels={}) for item in kept.items
        ]
        self._queues.setdefault((trail, answer), _Queue()).put(replace(kept, items=items))

    def _ahead(self, trail: Trail, answer: str) -> tuple[frozenset[str], bool]:
        """What may still be needed on the way to `answer` and beyond: tensors, and the image."""
        if (trail, answer) not in self._plans:
            graph = self.policy.graph
            done = {stage.name for stage in graph.needed(trail)}
            ahead = [s for s in graph.needed(self.policy.reachable(answer)) if s.name not in done]
            self._plans[trail, answer] = (
                frozenset(need for stage in ahead for need in stage.needs),
                any(stage.name in self.engine.inputs for stage in ahead),
            )
        return self._plans[trail, answer]
