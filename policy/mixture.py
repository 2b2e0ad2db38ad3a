"""Mixtures of two policies, decided by a hash of the key, and what is true of policies and them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.graph import StageGraph
from policy.rules import Policy
from policy.schema import STRICT
from policy.split import hash_of_keys

_SALT = "mixture of policies: "
"""Else the arm would follow from the part of the table that the same hash put the key in."""


@dataclass(frozen=True, config=STRICT)
class Mixture:
    """Two policies between which a hash of the key decides: how a budget is met exactly.

    A fraction `share` of all keys follows `dear`. An image decides the same on every retry.
    """

    cheap: Policy
    dear: Policy
    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that are none and policies of different graphs."""
        if not 0 <= self.share <= 1:
            raise InputError(f"a mixture with a share of {self.share}; wanted a fraction, 0 to 1")
        if self.cheap.graph != self.dear.graph:
            raise InputError("a mixture of policies over different graphs; wanted the same graph")

    @property
    def graph(self) -> StageGraph:
        """The graph of both."""
        return self.cheap.graph

    @property
    def arms(self) -> tuple[Policy, ...]:
        """The policies that images follow."""
        return (self.cheap, self.dear)

    def arm_of(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """[n], which of the arms each image follows."""
        salted = [f"{_SALT}{key}" for key in keys]
        return (hash_of_keys(salted, self.seed) < self.share).astype(np.intp)


Routing = Policy | Mixture
"""What can be simulated, certified and routed."""


def answers_used(routing: Routing) -> frozenset[str]:
    """Every answer that some image may get."""
    return frozenset(name for arm in routing.arms for name in arm.reachable(arm.start))


def with_graph(routing: Routing, graph: StageGraph) -> Routing:
    """The same decisions over another graph: at other costs, say."""
    if isinstance(routing, Mixture):
        cheap, dear = (replace(arm, graph=graph) for arm in routing.arms)
        return replace(routing, cheap=cheap, dear=dear)
    return replace(routing, graph=graph)
