"""What a fitting method is given: labelled images, each answer for them, and what to keep small."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError
from policy.graph import StageGraph
from policy.losses import Metric, Objective, regrets
from policy.split import hash_of_keys, split


@dataclass(frozen=True)
class Problem:
    """n labelled images: keys [n], labels [n] int32, and every answer of the graph for them.

    `metric` and `objective` say what a wrong label loses against the graph's full network (see
    losses.regret). `seed` is where a method's random numbers come from.
    """

    graph: StageGraph
    keys: Sequence[str]
    labels: NDArray[np.int32]
    outputs: Mapping[str, Answers]
    metric: Metric = "top1"
    objective: Objective = "excess"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse answers that are not for the same images."""
        missing = [name for name in self.graph.answers if name not in self.outputs]
        if missing:
            raise InputError(f"no answers given for {missing}, which the graph has")
        sizes = {name: len(answers) for name, answers in self.outputs.items()}
        sizes |= {"keys": len(self.keys), "labels": len(self.labels)}
        if len(set(sizes.values())) > 1:
            raise InputError(f"wanted everything for the same images; found {sizes}")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @functools.cached_property
    def lost(self) -> Mapping[str, NDArray[np.float64]]:
        """What each answer loses on each image if it gives the label, [n] by answer."""
        return regrets(self.outputs, self.graph.full, self.labels, self.metric, self.objective)

    def take(self, rows: NDArray[np.intp]) -> "Problem":
        """The same problem on only these images."""
        return replace(
            self,
            keys=[self.keys[row] for row in rows],
            labels=self.labels[rows],
            outputs={name: answers.take(rows) for name, answers in self.outputs.items()},
        )

    def at_most(self, n: int) -> "Problem":
        """The same problem on at most n images, picked by a hash of their keys."""
        if len(self) <= n:
            return self
        order = np.argsort(hash_of_keys([f"at most: {key}" for key in self.keys], self.seed))
        return self.take(np.sort(order[:n]))

    def split(self, shares: Mapping[str, float]) -> dict[str, "Problem"]:
        """Parts that share no key, by a hash of the keys; shares are fractions and sum to 1."""
        return {name: self.take(rows) for name, rows in split(self.keys, shares, self.seed).items()}
