"""Networks as graphs of stages, and what running some of them costs."""

import functools
import graphlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic.dataclasses import dataclass

from policy.errors import InputError
from policy.schema import STRICT

IMAGE = "image"
"""The tensor every graph starts from: the encoded image."""

STOP = "stop"
"""The action that ends a trail (see rules), so no name for a stage."""


@dataclass(frozen=True, config=STRICT)
class Stage:
    """A step that takes tensors and makes one.

    `cost` is that of this stage alone, per image, in the graph's unit. `needs` names the tensors it
    takes, in order: IMAGE or other stages. A stage that `answers` makes class probabilities.
    """

    name: str
    cost: float
    needs: tuple[str, ...] = (IMAGE,)
    answers: bool = False


@dataclass(frozen=True, config=STRICT)
class StageGraph:
    """Stages in an order in which they can run; each needs only IMAGE and earlier stages.

    `unit` is the unit of every cost ("ms", "gmac", "usd"). `edges` lists which answer may follow
    which; None allows any dearer one. Raises InputError on duplicate or reserved names, needs that
    no earlier stage makes (so also on cycles), and negative or non-finite costs.
    """

    stages: tuple[Stage, ...]
    unit: str
    edges: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run or paid for."""
        made = {IMAGE}
        for stage in self.stages:
            _check_stage(stage, made)
            made.add(stage.name)
        if not self.answers:
            raise InputError("a graph needs at least one stage that answers; found none")
        if self.edges is not None:
            _check_edges(self.edges, self.answers)

    @functools.cached_property
    def stage(self) -> Mapping[str, Stage]:
        """The stages by name."""
        return {stage.name: stage for stage in self.stages}

    @functools.cached_property
    def answers(self) -> tuple[str, ...]:
        """Names of the stages that answer, in graph order."""
        return tuple(stage.name for stage in self.stages if stage.answers)

    @functools.cached_property
    def full(self) -> str:
        """The dearest answer that none may follow: what is lost or saved is measured against it."""
        last = [answer for answer in self.answers if not self.followers(answer)]
        return max(last, key=lambda answer: self.cost((answer,)))

    @functools.cached_property
    def _closures(self) -> Mapping[str, frozenset[str]]:
        """For every stage, the stages that must run for it, itself included."""
        closures: dict[str, frozenset[str]] = {IMAGE: frozenset()}
        for stage in self.stages:
            upstream = (closures[need] for need in stage.needs)
            closures[stage.name] = frozenset({stage.name}).union(*upstream)
        return closures

    def needed(self, answers: Iterable[str]) -> tuple[Stage, ...]:
        """The stages that must run to get these answers, each once, in graph order."""
        names = frozenset[str]().union(*(self._closures[answer] for answer in answers))
        return tuple(stage for stage in self.stages if stage.name in names)

    def cost(self, answers: Iterable[str]) -> float:
        """Cost per image of getting all these answers; a shared stage is paid once."""
        return math.fsum(stage.cost for stage in self.needed(answers))

    def step_cost(self, trail: Sequence[str], answer: str) -> float:
        """What `answer` still costs once the answers on `trail` have been paid for."""
        paid = {stage.name for stage in self.needed(trail)}
        return math.fsum(s.cost for s in self.needed((answer,)) if s.name not in paid)

    def followers(self, answer: str) -> tuple[str, ...]:
        """The answers that may come after this one, cheapest first."""
        if self.edges is None:
            floor = self.cost((answer,))
            after = [other for other in self.answers if self.cost((other,)) > floor]
        else:
            after = [later for earlier, later in dict.fromkeys(self.edges) if earlier == answer]
        return tuple(sorted(after, key=lambda other: self.cost((other,))))

    def with_edges(self) -> "StageGraph":
        """The same graph with its edges spelt out, so that new costs do not change them."""
        edges = tuple((a, later) for a in self.answers for later in self.followers(a))
        return replace(self, edges=edges)

    def with_costs(self, costs: Mapping[str, float], unit: str) -> "StageGraph":
        """The same graph at other costs; every stage must be priced."""
        unpriced = [stage.name for stage in self.stages if stage.name not in costs]
        if unpriced:
            raise InputError(
                f"no cost given for stage {', '.join(map(repr, unpriced))}; costs are given for "
                f"{', '.join(map(repr, costs))}. Add the missing ones (0 is allowed)."
            )
        stages = tuple(replace(stage, cost=costs[stage.name]) for stage in self.stages)
        return replace(self, stages=stages, unit=unit)

    def reachable(self, start: str) -> tuple[str, ...]:
        """The answers that some trail from `start` may get, each before those that follow it."""
        before: dict[str, set[str]] = {start: set()}
        at = [start]
        while at:
            answer = at.pop()
            for after in self.followers(answer):
                if after not in before:
                    at.append(after)
                before.setdefault(after, set()).add(answer)
        return tuple(graphlib.TopologicalSorter(before).static_order())


def on_every_trail(
    order: Iterable[str], followers: Callable[[str], Iterable[str]]
) -> dict[str, frozenset[str]]:
    """For each answer, those that every trail to it has got, itself included.

    `order` starts with the answer every trail starts from, and has each before its followers.
    """
    common: dict[str, frozenset[str]] = {}
    for answer in order:
        common.setdefault(answer, frozenset({answer}))
        for follower in followers(answer):
            got = common[answer] | {follower}
            common[follower] = common.get(follower, got) & got
    return common


def _check_stage(stage: Stage, made: Collection[str]) -> None:
    if stage.name in ("", STOP) or stage.name in made:
        raise InputError(f"stage name {stage.name!r} is empty, reserved or used twice")
    missing = [need for need in stage.needs if need not in made]
    if missing or not stage.needs:
        raise InputError(
            f"stage {stage.name!r} needs {missing or 'nothing'}, which no earlier stage makes; "
            f"list stages in an order in which they can run, starting from {IMAGE!r}"
        )
    if not math.isfinite(stage.cost) or stage.cost < 0:
        raise InputError(f"stage {stage.name!r} costs {stage.cost}; wanted a finite number >= 0")


def _check_edges(edges: Iterable[tuple[str, str]], answers: Collection[str]) -> None:
    order = graphlib.TopologicalSorter[str]()
    for edge in edges:
        unknown = [name for name in edge if name not in answers]
        if unknown:
            raise InputError(f"edge {edge} names {unknown}, which is not an answer of this graph")
        order.add(edge[1], edge[0])
    try:
        order.prepare()
    except graphlib.CycleError as error:
        raise InputError(f"edges go in a circle: {' -> '.join(error.args[1])}") from error
