"""The fitting methods by name: each proposes policies from safe to bold for a problem."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from policy import (
    fit_averaged,
    fit_branchynet,
    fit_dag,
    fit_eenet,
    fit_gain,
    fit_msdnet,
    fit_myopic,
    fit_pabee,
    fit_per_class,
    fit_search,
    fit_single,
    fit_uniform,
)
from policy.mixture import Routing
from policy.problem import Problem

Name = Literal[
    "single",
    "uniform",
    "myopic",
    "msdnet",
    "branchynet",
    "pabee",
    "search",
    "per-class",
    "eenet",
    "dag",
    "averaged",
    "gain",
]
"""One method."""

METHODS: Mapping[Name, Callable[[Problem], Sequence[Routing]]] = {
    "single": fit_single.propose,
    "uniform": fit_uniform.propose,
    "myopic": fit_myopic.propose,
    "msdnet": fit_msdnet.propose,
    "branchynet": fit_branchynet.propose,
    "pabee": fit_pabee.propose,
    "search": fit_search.propose,
    "per-class": fit_per_class.propose,
    "eenet": fit_eenet.propose,
    "dag": fit_dag.propose,
    "averaged": fit_averaged.propose,
    "gain": fit_gain.propose,
}

BASELINES: tuple[Name, ...] = (
    "single",
    "uniform",
    "myopic",
    "msdnet",
    "branchynet",
    "pabee",
    "search",
)
"""What the papers compare with."""

MOST_FITTED = 25_000
"""Images that a method is fitted on at most: more change rules of a few dozen weights little."""
