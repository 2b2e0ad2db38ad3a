"""What EENet looks at, at every exit of a chain of answers, and which exits are right."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError
from policy.features import Feature, Seen, feature_values
from policy.graph import StageGraph
from policy.losses import wrong
from policy.problem import Problem

Matrix = NDArray[np.float64]

MOST_CLASSES = 100
"""Beyond, probabilities are taken by rank, as they are on fewer images than ROWS_PER_CLASS each.

With 1,000 classes on 500 images a weight for every class ranks worse than the maximum probability
alone, whatever the weight decay; with 10 classes on 2,000 images it does as well as ranks.
"""

ROWS_PER_CLASS = 100
"""A choice between those two: 200 images for each class were enough, one for two was not."""

_RANKS = 5
_LEAST = 1e-3  # of a feature's deviation: a weight that must undo less would blow up rounding


@dataclass(frozen=True)
class Exit:
    """One answer of the chain: what its score looks at, standardised [n, features].

    `centre` and `scale` [features] undo the standardisation. Earlier scores are not among the
    features; they are known only once those are fitted.
    """

    answer: str
    features: tuple[Feature, ...]
    values: Matrix
    centre: Matrix
    scale: Matrix


@dataclass(frozen=True)
class Exits:
    """A chain of K answers for n images.

    `right` [n, K] is 1 where the exit's answer is right in the asked metric, else 0. `costs` [K]
    are those of the chain up to and including each exit, per image.
    """

    chain: tuple[str, ...]
    exits: tuple[Exit, ...]
    right: Matrix
    costs: Matrix

    def __len__(self) -> int:
        """The number of images."""
        return len(self.right)


def check_chain(graph: StageGraph, chain: Sequence[str]) -> None:
    """Refuse, with InputError, what is no chain of answers of the graph."""
    unknown = [name for name in chain if name not in graph.answers]
    if unknown or not chain:
        raise InputError(f"a chain of {list(chain)}; wanted one or more answers of {graph.answers}")
    for before, after in itertools.pairwise(chain):
        if after not in graph.followers(before):
            raise InputError(
                f"the graph has no edge from {before!r} to {after!r}; a chain needs one between "
                "any two neighbours"
            )


def exits_of(problem: Problem, chain: Sequence[str]) -> Exits:
    """Read a chain's inputs and targets; raises InputError if too few classes are recorded."""
    right = [~wrong(problem.outputs[name], problem.labels, problem.metric) for name in chain]
    return Exits(
        chain=tuple(chain),
        exits=tuple(_exit(problem, chain[: number + 1]) for number in range(len(chain))),
        right=np.stack(right, axis=1).astype(np.float64),
        costs=np.array([problem.graph.cost(chain[: number + 1]) for number in range(len(chain))]),
    )


def _exit(problem: Problem, trail: Sequence[str]) -> Exit:
    seen = Seen({name: problem.outputs[name] for name in trail})
    features = features_at(trail, problem.outputs)
    values = feature_values(features, seen)
    centre, scale = values.mean(axis=0), np.maximum(values.std(axis=0), _LEAST)
    return Exit(trail[-1], features, (values - centre) / scale, centre, scale)


def features_at(trail: Sequence[str], outputs: Mapping[str, Answers]) -> tuple[Feature, ...]:
    """The prediction and its confidences at the last answer of a trail (section 3.2 of the paper).

    The probabilities are by class where all are recorded, few, and often seen, else by rank, of
    which the first is the maximum probability. A single answer's vote is always 1 and left out.
    """
    answer = trail[-1]
    recorded = outputs[answer]
    found = [Feature(answer, "max_probability"), Feature(answer, "entropy")]
    if len(trail) > 1:
        found.append(Feature(answer, "vote"))
    k = recorded.classes.shape[1]
    if k <= min(MOST_CLASSES, len(recorded) / ROWS_PER_CLASS) and _all_classes(recorded):
        found += [Feature(answer, "class_probability", index=number) for number in range(k)]
    else:
        found += [Feature(answer, "probability", index=rank) for rank in range(1, min(k, _RANKS))]
    return tuple(found)


def _all_classes(recorded: Answers) -> bool:
    """Whether each row lists the classes 0 to k - 1."""
    k = recorded.classes.shape[1]
    return bool((np.sort(recorded.classes, axis=1) == np.arange(k)).all())
