"""Fitting exits' heads: multinomial logistic regression on features streamed from a table.

Mini-batches are drawn at random from a buffer that the stream refills, so memory is bounded
whatever the table holds. Adam minimises cross-entropy plus half the squared weights (on
standardised features) over the number of rows, as scikit-learn's LogisticRegression does by
default. After every round the average of the round's weights is judged on held-out rows; where it
stops getting better, the learning rate falls, and after the last rate the best average is the head.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from policy.errors import InputError
from policy.heads import Head
from policy.table import Table, exit_of
from policy.table_features import feature_batches
from transforms.mini_batches import BATCH, Batch, Stream, joined, mini_batches

_LEAST_STEPS = 200  # in a round; otherwise a round is as many mini-batches as one pass has
_MOST_ROUNDS = 60
_PATIENCE = 2  # rounds without getting better before the learning rate falls
_LEARNING_RATES = (0.01, 0.002, 0.0004)
_BETTER = 1e-4  # nats: less is no improvement
_HELD_OUT = 0.1
_MOST_HELD_OUT = 10_000
_LEAST_ROWS = 20
_LEAST_PARALLEL = 100_000_000  # multiply-accumulates of a step that are worth several threads
_LEAST_SPREAD = 1e-3  # of the typical feature's; a nearly constant one must not outweigh all others


@dataclass(frozen=True)
class _Moments:
    """Of n training rows: mean [features], covariance [features, features], rows by class."""

    n: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _Linear:
    """Weight [classes, features] on white features, and bias [classes]."""

    weight: torch.Tensor
    bias: torch.Tensor

    @property
    def parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight, self.bias

    def loss(self, labels: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        return cross_entropy(x @ self.weight.T + self.bias, labels)

    def copy(self) -> "_Linear":
        return _Linear(self.weight.detach().clone(), self.bias.detach().clone())


class _White:
    """Features made uncorrelated and of one size, where Adam is quick; and heads back from there.

    `strength` [features] says how much a squared weight there counts, so that the penalty is the
    squared length of the weights on standardised features, whatever the correlations.
    """

    def __init__(self, moments: _Moments) -> None:
        deviation = np.sqrt(np.diag(moments.covariance).clip(0))
        spread = _at_least(_LEAST_SPREAD * np.sqrt((deviation**2).mean()), deviation)
        variances, axes = np.linalg.eigh(moments.covariance / np.outer(spread, spread))
        scale = _at_least(
            _LEAST_SPREAD * np.sqrt(max(variances[-1], 0)), np.sqrt(variances.clip(0))
        )
        self.mean, self.to_white, self.strength = (
            torch.from_numpy(values.astype(np.float32))
            for values in (moments.mean, axes / spread[:, None] / scale, scale**-2)
        )

    def batch(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        labels, features = (torch.from_numpy(values) for values in batch)
        return labels.long(), (features.float() - self.mean) @ self.to_white

    def head(self, linear: _Linear) -> Head:
        weight = linear.weight @ self.to_white.T
        return Head(weight.numpy(), (linear.bias - weight @ self.mean).numpy())


def _at_least(least: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """None below `least`, so that what hardly varies cannot outweigh the rest; and none 0."""
    raised: NDArray[np.float64] = np.maximum(values, least)
    return np.where(raised > 0, raised, 1)


def fit_exits(folder: str, table: Table, rows: NDArray[np.intp], seed: int) -> dict[str, Head]:
    """A head for every stage of the table's networks with features, by exit.

    They are fitted on these rows of the table, which was read from `folder`; a part of them is held
    out to stop at. The same seed gives the same heads. Raises InputError on fewer than 20 rows, and
    as `feature_batches` does.
    """
    if len(rows) < _LEAST_ROWS:
        raise InputError(
            f"{len(rows)} rows to fit exits' heads on; wanted at least {_LEAST_ROWS}. Give them a "
            "larger share, or extract more images."
        )
    shuffled = np.random.default_rng(seed).permutation(rows)
    held, fitted = np.split(shuffled, [min(int(_HELD_OUT * len(rows)), _MOST_HELD_OUT)])
    heads = {}
    for stage in (stage for network in table.networks.values() for stage in network.features):

        def stream(rng: np.random.Generator, stage: str = stage) -> Iterator[Batch]:
            for some, features in feature_batches(folder, table, stage, fitted, rng):
                yield table.labels[some], features

        held_out = joined(
            (table.labels[some], features)
            for some, features in feature_batches(folder, table, stage, held)
        )
        heads[exit_of(stage)] = fit_head(stream, held_out, len(table.class_names), seed)
    return heads


def fit_head(stream: Stream, held_out: Batch, classes: int, seed: int) -> Head:
    """The linear classifier of the rows of `stream` that is best on the rows held out.

    Classes that no row has get a head that hardly ever answers them. `seed` decides the order of
    the rows.
    """
    rng = np.random.default_rng(seed)
    moments = _measured(stream(rng), classes)
    with _threads_for(len(moments.mean), classes):
        return _fitted(stream, moments, held_out, rng)


@contextmanager
def _threads_for(width: int, classes: int) -> Iterator[None]:
    """One thread for small heads: several would mostly wait for each other, on a busy machine long.

    On two busy cores, steps of 0.4 ms took 60 ms on two threads (16 features, 10 classes).
    """
    before = torch.get_num_threads()
    small = BATCH * width * (width + classes) < _LEAST_PARALLEL
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(stream: Stream, moments: _Moments, held_out: Batch, rng: np.random.Generator) -> Head:
    """The head, once the rows were measured."""
    white = _White(moments)
    held = white.batch(held_out)
    shares = torch.from_numpy((moments.counts + 0.5) / moments.n).float()
    start = _Linear(torch.zeros(len(shares), len(moments.mean)), shares.log())
    batches = (
        white.batch(batch) for batch in mini_batches(stream, moments.n, len(moments.mean), rng)
    )
    steps = max(_LEAST_STEPS, -(-moments.n // BATCH))
    best, least = start, float(start.loss(*held))
    for rate in _LEARNING_RATES:
        current, worse = best.copy(), 0
        for values in current.parameters:
            values.requires_grad_()
        optimizer = torch.optim.Adam(current.parameters, lr=rate, fused=True)
        for _ in range(_MOST_ROUNDS):
            some = islice(batches, steps)
            average = _round(current, optimizer, some, white.strength / moments.n)
            found = float(average.loss(*held))
            worse = 0 if found < least - _BETTER else worse + 1
            if found < least:
                best, least = average, found
            if worse == _PATIENCE:
                break
    return white.head(best)


def _round(
    current: _Linear,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    penalty: torch.Tensor,
) -> _Linear:
    """Step once for each batch; the average of the weights after each step."""
    average = current.copy()
    for step, (labels, x) in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss = current.loss(labels, x) + (current.weight.square() @ penalty).sum() / 2
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters, current.parameters, strict=True):
                mean.lerp_(value, 1 / step)
    return average


def _measured(batches: Iterator[Batch], classes: int) -> _Moments:
    """One pass over the rows; summed from the first part's mean, lest large numbers cancel."""
    n, origin = 0, np.zeros(0, dtype=np.float32)
    sums, products = np.zeros(0), np.zeros((0, 0))
    counts = np.zeros(classes, dtype=np.int64)
    for labels, features in batches:
        x = features.astype(np.float32)
        if not n:
            origin = x.mean(axis=0)
            sums, products = np.zeros(len(origin)), np.zeros((len(origin), len(origin)))
        x -= origin
        sums += x.sum(axis=0, dtype=np.float64)
        products += x.T @ x
        n += len(x)
        counts += np.bincount(labels, minlength=classes)
    mean = sums / n
    return _Moments(n, origin + mean, products / n - np.outer(mean, mean), counts)
