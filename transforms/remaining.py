"""Running on a batch what an answer still needs: no stage twice, inputs made where they are not."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from transforms.doing import COPY, RESIZE, doing, of_stage
from transforms.prepare import Prepared
from transforms.queues import Batch, pick
from transforms.resize import fit
from transforms.stages import DECODE, Engine


@dataclass(frozen=True)
class Remaining:
    """An engine, the classes to get of each answer (None: all), and threads that make inputs."""

    engine: Engine
    k: int | None
    pool: Executor

    def get(
        self, done: frozenset[str], answer: str, waiting: Sequence[Batch], start: int, stop: int
    ) -> Batch:
        """Some of the images, with an answer and the tensors that were made for it.

        `done` are the stages that were run for all of these images.
        """
        return self.begin(done, answer, waiting, start, stop).end()

    def begin(
        self, done: frozenset[str], answer: str, waiting: Sequence[Batch], start: int, stop: int
    ) -> "Begun":
        """The same, without waiting for the answer."""
        with doing(COPY):
            batch = pick(waiting, start, stop)
        for stage in self.engine.unpriced.needed((answer,)):
            if stage.name in done or stage.name in (DECODE, answer):
                continue
            if stage.name in self.engine.inputs:
                with doing(RESIZE):
                    pixels = self.pixels(stage.name, batch.items)
                with doing(COPY):
                    batch.made[stage.name] = self.engine.input_batch(stage.name, pixels)
                continue
            with doing(of_stage(stage.name)):
                batch.made[stage.name] = self.engine.run(stage.name, batch.made)
        with doing(of_stage(answer)):
            answers = self.engine.begin_answer(answer, batch.made, self.k)
        return Begun(answer, batch, answers)

    def pixels(self, stage: str, items: Sequence[Prepared]) -> list[NDArray[np.uint8]]:
        """What an input stage makes of images; of those that have it not yet, on the threads."""
        images = (item.image for item in items if stage not in item.pixels)
        missing = [image for image in images if image is not None]
        made = self.pool.map(fit, missing, [self.engine.inputs[stage]] * len(missing))
        return [item.pixels[stage] if stage in item.pixels else next(made) for item in items]


@dataclass(frozen=True)
class Begun:
    """Images whose answer a device may still be working on."""

    answer: str
    batch: Batch
    answers: Callable[[], Answers]

    def end(self) -> Batch:
        """Wait for the answer."""
        with doing(of_stage(self.answer)):
            self.batch.got[self.answer] = self.answers()
        return self.batch
