"""The best loop for a cascade that one writes by hand: no framework, one policy, this machine.

Threads decode ahead; or, with no workers, each of several processes decodes and computes by itself,
so that nothing waits for anything. Survivors wait until a batch is full; only they get larger
inputs. The policy's own functions decide (they need no more than what a cut needs), and torch makes
what they look at.
"""

import multiprocessing
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.corpus import PER_SHARD, decoded, encoded_images, pixels
from benchmarks.peers.job import Job, begin, finish, told
from benchmarks.peers.labels import TOP, write_labels
from benchmarks.peers.networks import SPEC, tuned
from launch.memory import keep_freed_memory
from policy.answers import Answers, concatenate
from policy.bundle import read_bundle
from policy.rules import STOP, Policy

AHEAD = 3
"""Batches that are decoded ahead."""

Trail = tuple[int, tuple[str, ...]]
"""The number of the arm that is followed, and its answers, the last of them to be got."""


@dataclass(frozen=True)
class Photo:
    """A decoded image with its pixels for the first network."""

    key: str
    image: Image.Image
    first: NDArray[np.uint8]


@dataclass(frozen=True)
class Waiting:
    """Photos [n] and the answers they have got."""

    photos: list[Photo]
    got: dict[str, Answers]


class Cascade:
    """Networks, and the photos that wait for each."""

    def __init__(self, job: Job) -> None:
        """Load what the policy may ask for."""
        self.policy = read_bundle(job.policy).policy
        self.batch_size = job.batch_size
        answers = {name for arm in self.policy.arms for name in arm.reachable(arm.start)}
        self.networks = {name: tuned(job.data, name, job.precision) for name in answers}
        self.waiting: defaultdict[Trail, list[Waiting]] = defaultdict(list)
        self.keys: list[str] = []
        self.labels: list[Answers] = []

    @property
    def side(self) -> int:
        """Of the first input."""
        return SPEC[self.policy.arms[0].start].side

    def take(self, photos: list[Photo]) -> None:
        """Run the first network on new photos, and every later one that has a full batch."""
        arm_of = self.policy.arm_of([photo.key for photo in photos])
        for number, arm in enumerate(self.policy.arms):
            chosen = [photos[row] for row in np.flatnonzero(arm_of == number)]
            if chosen:
                self.waiting[number, (arm.start,)].append(Waiting(chosen, {}))
        self.run(self.batch_size)

    def run(self, least: int) -> None:
        """Run what waits for a network in groups of at least so many."""
        while at := self._enough(least):
            groups = self.waiting.pop(at)
            photos = [photo for group in groups for photo in group.photos]
            got = {a: concatenate(group.got[a] for group in groups) for a in at[1][:-1]}
            rows = np.arange(len(photos))
            now, later = rows[: self.batch_size], rows[self.batch_size :]
            if later.size:
                self.waiting[at].append(_taken(photos, got, later))
            self._step(at, _taken(photos, got, now))

    def _enough(self, least: int) -> Trail | None:
        """A trail with so many photos; the last batches go by depth, so that they are few."""
        counts = {at: sum(len(g.photos) for g in groups) for at, groups in self.waiting.items()}
        full = [at for at, count in counts.items() if count >= least]
        return min(full, key=lambda at: len(at[1]), default=None)

    def _step(self, at: Trail, group: Waiting) -> None:
        number, trail = at
        arm = self.policy.arms[number]
        got = {**group.got, trail[-1]: self._answers(arm, trail[-1], group.photos)}
        for action, chosen in arm.split(got):
            part = _taken(group.photos, got, chosen)
            if action == STOP:
                self.keys += [photo.key for photo in part.photos]
                self.labels.append(arm.label(part.got).top(TOP))
            else:
                self.waiting[number, (*trail, action)].append(part)

    def _answers(self, arm: Policy, answer: str, photos: list[Photo]) -> Answers:
        side = SPEC[answer].side
        rows = [p.first if side == self.side else pixels(p.image, side) for p in photos]
        logits = self.networks[answer](torch.from_numpy(np.stack(rows)))
        sure = logits.log_softmax(1)
        found = sure.exp().topk(max(TOP, arm.classes_needed or sure.shape[1]))
        entropy = -(sure.exp() * sure).sum(1)
        return Answers(found.indices.int().numpy(), found.values.numpy(), entropy.numpy())


def _taken(photos: list[Photo], got: dict[str, Answers], rows: NDArray[np.intp]) -> Waiting:
    return Waiting([photos[r] for r in rows], {a: full.take(rows) for a, full in got.items()})


def decoded_photos(job: Job, paths: list[Path], side: int) -> Iterator[Photo]:
    """All photos in order; by threads, or here."""

    def photo(key: str, encoded: bytes) -> Photo:
        image = decoded(encoded)
        return Photo(key, image, pixels(image, side))

    encoded = (pair for path in paths for pair in encoded_images(path))
    if not job.workers:
        yield from (photo(*pair) for pair in encoded)
        return
    with ThreadPoolExecutor(job.workers) as pool:
        ahead: deque[Future[Photo]] = deque()
        for pair in encoded:
            ahead.append(pool.submit(photo, *pair))
            if len(ahead) > AHEAD * job.batch_size:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@torch.inference_mode()
def label(job: Job, number: int, all_loaded: "threading.Barrier") -> None:
    """Label every so many-th tar in this process, from `number` on."""
    if job.threads:
        torch.set_num_threads(job.threads)
    cascade = Cascade(job)
    all_loaded.wait()
    begin(job)
    paths, batch = job.paths[number :: job.processes], []
    if not paths:
        return  # more processes than tars
    for photo in decoded_photos(job, paths, cascade.side):
        batch.append(photo)
        if len(batch) == job.batch_size:
            cascade.take(batch)
            batch = []
    if batch:
        cascade.take(batch)
    cascade.run(1)
    classes = [answers.classes for answers in cascade.labels]
    probabilities = [answers.probabilities for answers in cascade.labels]
    path = Path(job.output) / f"labels-{number}.parquet"
    write_labels(path, cascade.keys, classes, probabilities)


def main() -> None:
    """Start the processes, if there are several, and wait for them."""
    job = told()
    keep_freed_memory()
    if job.processes == 1:
        label(job, 0, threading.Barrier(1))
    else:
        context = multiprocessing.get_context("fork")  # nothing of torch has run yet
        barrier = context.Barrier(job.processes)
        children = [
            context.Process(target=label, args=(job, number, barrier))
            for number in range(job.processes)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        if any(child.exitcode for child in children):
            raise SystemExit("a process of the cascade failed; its error stands above")
    finish(job, len(job.paths) * PER_SHARD)


if __name__ == "__main__":
    main()
