"""Images on their way through the network: batches of them, and bounded queues of such batches."""

from collections import deque
from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from transforms.prepare import Prepared

PATIENCE = 128
"""Batches after which a queue is run although it is not full: rows wait for it, and with their rows
whole shards. At 1 % of the images, as many batches of images give a full batch."""

MOST_WAITING = 16
"""Batches that wait in all; beyond it the fullest queue is run. A policy may have so many trails
that what waits for full batches of each fits no memory."""


@dataclass(frozen=True)
class Batch:
    """Images with the same trail, the tensors kept for later stages, and the answers so far."""

    items: list[Prepared]
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    got: dict[str, Answers] = field(default_factory=dict)

    def only(self, tensors: Container[str]) -> "Batch":
        """The same images with only these tensors."""
        kept = {name: tensor for name, tensor in self.made.items() if name in tensors}
        return Batch(self.items, kept, self.got)

    def take(self, rows: NDArray[np.intp]) -> "Batch":
        """A copy of these rows."""
        index = torch.from_numpy(rows)
        return Batch(
            [self.items[row] for row in rows],
            {name: tensor[index.to(tensor.device)] for name, tensor in self.made.items()},
            {name: answers.take(rows) for name, answers in self.got.items()},
        )

    def between(self, start: int, stop: int) -> "Batch":
        """Rows next to each other, which need no copy."""
        return Batch(
            self.items[start:stop],
            {name: tensor[start:stop] for name, tensor in self.made.items()},
            {n: answers.take(np.arange(start, stop)) for n, answers in self.got.items()},
        )


def pick(parts: Sequence[Batch], start: int, stop: int) -> Batch:
    """The images of these numbers, counted through all parts, as one batch of its own."""
    picked, seen = [], 0
    for part in parts:
        first, last = max(start - seen, 0), min(stop - seen, len(part.items))
        if first < last:
            whole = last - first == len(part.items)
            picked.append(part if whole else part.between(first, last))
        seen += len(part.items)
    return _join(picked)


def _join(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        (one,) = parts
        return Batch(list(one.items), dict(one.made), dict(one.got))
    return Batch(
        [item for part in parts for item in part.items],
        {name: torch.cat([part.made[name] for part in parts]) for name in parts[0].made},
        {name: concatenate(part.got[name] for part in parts) for name in parts[0].got},
    )


class Queue:
    """Images waiting for one answer; gives back as many as asked, in the parts they came in."""

    def __init__(self) -> None:
        """Start empty; `waiting` counts images, and `since` is when the oldest may have come."""
        self.parts: deque[Batch] = deque()
        self.waiting = 0
        self.since = 0

    def put(self, batch: Batch) -> None:
        """Add images at the end."""
        self.parts.append(batch)
        self.waiting += len(batch.items)

    def take(self, size: int) -> list[Batch]:
        """The first `size` images, or all there are."""
        taken: list[Batch] = []
        missing = min(size, self.waiting)
        while missing:
            part = self.parts.popleft()
            if len(part.items) > missing:
                self.parts.appendleft(part.take(np.arange(missing, len(part.items))))
                part = part.take(np.arange(missing))
            taken.append(part)
            missing -= len(part.items)
            self.waiting -= len(part.items)
        return taken


PlaceT = TypeVar("PlaceT", bound=Hashable)


class Queues(Generic[PlaceT]):
    """A queue for each place, and which of them are to be run, in batches of `batch_size`.

    While all that are ready are run, at most `MOST_WAITING` batches wait, and the one that is being
    sent on, and no image for longer than `PATIENCE` batches.
    """

    def __init__(self, batch_size: int) -> None:
        """Start without a queue."""
        self.batch_size = batch_size
        self.at: dict[PlaceT, Queue] = {}
        self._fed = 0

    def fed(self) -> None:
        """Another batch of images has come in."""
        self._fed += 1

    def put(self, place: PlaceT, batch: Batch) -> None:
        """Let images wait."""
        queue = self.at.setdefault(place, Queue())
        if not queue.waiting:
            queue.since = self._fed
        queue.put(batch)

    def take(self, place: PlaceT) -> list[Batch]:
        """The images there that are to be run next."""
        queue = self.at[place]
        queue.since = self._fed
        return queue.take(self.batch_size)

    def waiting(self) -> list[PlaceT]:
        """Where images wait."""
        return [place for place, queue in self.at.items() if queue.waiting]

    def ready(self) -> list[PlaceT]:
        """Where a batch is full or has waited for long; else the fullest, if too much waits."""
        waiting = self.waiting()
        ready = [place for place in waiting if self._is_ready(self.at[place])]
        total = sum(self.at[place].waiting for place in waiting)
        if ready or total <= MOST_WAITING * self.batch_size:
            return ready
        return [max(waiting, key=lambda place: self.at[place].waiting)]

    def _is_ready(self, queue: Queue) -> bool:
        return queue.waiting >= self.batch_size or self._fed - queue.since >= PATIENCE
