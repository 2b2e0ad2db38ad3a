"""EENet's assignment functions: which exit each sample is meant for while scores are fitted.

A two-layer network h_k at every exit looks at what the score looks at; a softmax over the exits of
the chain gives r [n, K]. Section 3.2 of Ilhan et al. 2024, with the loss L_h.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from policy.eenet_inputs import Exits, Matrix

HIDDEN = 16
"""Units of the first layer."""

DECAY = 1e-2
"""Of the weights at every step, as a fraction of the step (Loshchilov & Hutter 2019)."""

_BATCH = 512
_RATE = 5e-3
_LOWEST = 1e-3  # of a score in p*, so that some exit is always wanted
_TINY = 1e-12  # before a logarithm
_MEMORY = (0.9, 0.999)  # of the gradient and of its square: Adam (Kingma & Ba 2015)

Array = NDArray[Any]  # float32 in training; float64 where gradients are checked


@dataclass(frozen=True)
class Assignment:
    """The parameters of all h_k in one vector; `inputs` is the widest exit's number of inputs."""

    parameters: Array
    exits: int
    inputs: int

    def layers(self) -> tuple[Array, Array, Array]:
        """Views: first layer [K, inputs, HIDDEN], its bias [K, 1, HIDDEN], second [K, HIDDEN, 1].

        The second layer needs no bias: the first unit's bias can make it, and a shift of all exits
        changes nothing in a softmax.
        """
        first = self.exits * self.inputs * HIDDEN
        second = first + self.exits * HIDDEN
        return (
            self.parameters[:first].reshape(self.exits, self.inputs, HIDDEN),
            self.parameters[first:second].reshape(self.exits, 1, HIDDEN),
            self.parameters[second:].reshape(self.exits, HIDDEN, 1),
        )


def start_assignment(exits: int, inputs: int, rng: np.random.Generator) -> Assignment:
    """Random parameters, scaled by each layer's number of inputs."""
    sizes = (exits * inputs * HIDDEN, exits * HIDDEN, exits * HIDDEN)
    scales = (math.sqrt(2 / inputs), 0.1, math.sqrt(1 / HIDDEN))
    parts = [rng.normal(0, scale, size) for size, scale in zip(sizes, scales, strict=True)]
    return Assignment(np.concatenate(parts).astype(np.float32), exits, inputs)


def assignment_inputs(exits: Exits, scores: Matrix) -> NDArray[np.float32]:
    """[K, n, inputs]: at each exit its features, the earlier clamped scores, zeros."""
    width = max(exit_.values.shape[1] + number for number, exit_ in enumerate(exits.exits))
    inputs = np.zeros((len(exits.chain), len(exits), width), dtype=np.float32)
    for number, exit_ in enumerate(exits.exits):
        own = exit_.values.shape[1]
        inputs[number, :, :own] = exit_.values
        inputs[number, :, own : own + number] = np.clip(scores[:, :number], 0, 1)
    return inputs


def assigned(assignment: Assignment, inputs: Array) -> Array:
    """R [n, K]; each row sums to 1."""
    first, bias, second = assignment.layers()
    logits = np.maximum(inputs @ first + bias, 0) @ second
    shares: Array = softmax(logits[:, :, 0].T, axis=1)
    return shares


@dataclass(frozen=True)
class Aim:
    """What L_h asks of r: to be near p* [n, K], and to cost `budget` a sample at `costs` [K].

    `cost_weight` is that of the second wish (alpha).
    """

    wanted: Array
    costs: Array
    budget: float
    cost_weight: float

    def loss(self, shares: Array) -> tuple[float, Array]:
        """L_h = KL(p* || r) + alpha |B - mean cost| / B, and its gradient by the logits."""
        n = len(shares)
        cost = shares @ self.costs
        over = float(cost.mean()) - self.budget
        ratio = np.log(np.maximum(self.wanted, _TINY)) - np.log(np.maximum(shares, _TINY))
        divergence = float((self.wanted * ratio).sum(axis=1).mean())
        price = self.cost_weight / self.budget
        slope = shares - self.wanted
        slope += price * np.sign(over) * shares * (self.costs - cost[:, None])
        return divergence + price * abs(over), slope / n


def aim(scores: Matrix, beta: float, costs: Matrix, budget: float, cost_weight: float) -> Aim:
    """p*_k proportional to the clamped score to the power of 1 / beta."""
    powers = np.clip(scores, _LOWEST, 1) ** (1 / beta)
    wanted = powers / powers.sum(axis=1, keepdims=True)
    return Aim(wanted.astype(np.float32), costs.astype(np.float32), budget, cost_weight)


def assignment_loss(assignment: Assignment, inputs: Array, goal: Aim) -> tuple[float, Array]:
    """L_h and its gradient by the parameters: back through the softmax and both layers."""
    first, bias, second = assignment.layers()
    hidden = np.maximum(inputs @ first + bias, 0)
    shares = softmax((hidden @ second)[:, :, 0].T, axis=1)
    loss, by_logits = goal.loss(shares)
    back = by_logits.T[:, :, None]
    by_hidden = (back * second.transpose(0, 2, 1)) * (hidden > 0)
    parts = (
        inputs.transpose(0, 2, 1) @ by_hidden,
        by_hidden.sum(axis=1),
        hidden.transpose(0, 2, 1) @ back,
    )
    return loss, np.concatenate([part.ravel() for part in parts])


def fit_assignment(
    assignment: Assignment, inputs: Array, goal: Aim, steps: int, rng: np.random.Generator
) -> Assignment:
    """`steps` steps of Adam with decoupled weight decay over mini-batches of the samples."""
    parameters = assignment.parameters.copy()
    mean, square = np.zeros_like(parameters), np.zeros_like(parameters)
    slow, slower = _MEMORY
    for step, rows in zip(range(1, steps + 1), _batches(inputs.shape[1], rng), strict=False):
        part = replace(goal, wanted=goal.wanted[rows])
        now = replace(assignment, parameters=parameters)
        _, gradient = assignment_loss(now, inputs[:, rows], part)
        mean = slow * mean + (1 - slow) * gradient
        square = slower * square + (1 - slower) * gradient**2
        direction = (mean / (1 - slow**step)) / (np.sqrt(square / (1 - slower**step)) + 1e-8)
        rate = _RATE * (1 - (step - 1) / steps)  # to nothing, as the budget's slope jumps at 0
        parameters = parameters - rate * (direction + DECAY * parameters)
    return replace(assignment, parameters=parameters)


def _batches(n: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Endlessly, all rows in ever new orders."""
    while True:
        order = rng.permutation(n)
        for first in range(0, n, _BATCH):
            yield order[first : first + _BATCH]
