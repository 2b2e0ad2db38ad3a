"""Plans of answers walked by choices per predicted class: who goes where, and the policy it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policy.features import Feature
from policy.fit_shares import SIGN, Score
from policy.per_class import Choice, Fitted, Levels, Vector, Whole, fit_choice
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule

_FAR = 1e3  # beyond any score: a probability, or an entropy, which is below log(classes)

Choices = Mapping[str, Fitted]
"""By answer; where there is none, the trail ends."""


@dataclass(frozen=True)
class Node:
    """The trail to an answer of a plan, and the answers that may follow it there."""

    trail: tuple[str, ...]
    ways: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The answer that the trail ends with."""
        return self.trail[-1]


@dataclass(frozen=True)
class Plan:
    """First node first. The ways of a node end the trail, but for one that goes to the next node.

    `levels` has the scores of each answer, all of the kind `score`; `half` [n] is 0 or 1.
    """

    problem: Problem
    score: Score
    levels: Mapping[str, Levels]
    half: Whole
    nodes: tuple[Node, ...]

    @property
    def start(self) -> str:
        """The answer that every trail starts from."""
        return self.nodes[0].answer

    def realised(self, choices: Choices) -> tuple[dict[str, Vector], dict[str, Vector]]:
        """What each image costs after an answer, and what it loses then: [n] each, by answer.

        With the choice of the half that it is not in (see per_class.Fitted).
        """
        spent = {name: np.zeros(len(self.problem)) for name in self.problem.outputs}
        lost = {name: own.copy() for name, own in self.problem.lost.items()}
        for node in reversed(self.nodes):
            for number, after in enumerate(node.ways if node.answer in choices else ()):
                rows = choices[node.answer].taken == number
                step = self.problem.graph.step_cost(node.trail, after)
                spent[node.answer][rows] = step + spent[after][rows]
                lost[node.answer][rows] = lost[after][rows]
        return spent, lost

    def fit_node(self, choices: Choices, node: Node, price: float) -> Fitted:
        """The choice at a node, for a price of a lost answer, given those at some other nodes.

        It is made on the images that get there by the choices before it, those already made.
        """
        spent, lost = self.realised(choices)
        own, step_cost = self.problem.lost[node.answer], self.problem.graph.step_cost
        extra = [
            step_cost(node.trail, after) + spent[after] + price * (lost[after] - own)
            for after in node.ways
        ]
        reached = np.ones(len(self.problem), dtype=np.bool_)
        for before in self.nodes[: self.nodes.index(node)]:
            if before.answer in choices:  # of several ways, only one leads to a further node
                way = before.ways.index(node.trail[len(before.trail)])
                reached &= choices[before.answer].taken == way
        halves = [np.flatnonzero(reached & (self.half == number)) for number in (0, 1)]
        return fit_choice(self.levels[node.answer], extra, halves)

    def policy(self, choices: Choices) -> Policy:
        """The same choices as rules; nodes where nobody goes on have none."""
        rules = []
        for node in self.nodes:
            if node.answer not in choices or not choices[node.answer].choice.below.any():
                break
            rules.append(self._rule(node, choices[node.answer].choice))
        return Policy(self.problem.graph, self.start, tuple(rules))

    def _rule(self, node: Node, choice: Choice) -> Rule:
        """STOP scores by how much the threshold of the class is passed, its way 0, others -1."""
        cuts = np.concatenate([[-_FAR], self.levels[node.answer].cuts, [_FAR]])
        values = cuts[choice.below]
        used = [
            (number, after)
            for number, after in enumerate(node.ways)
            if (choice.way == number)[choice.below > 0].any()
        ]
        features = [
            Feature(node.answer, self.score),
            Feature(node.answer, "of_class", values=tuple(values.tolist())),
        ]
        weights = [[SIGN[self.score], -1.0]]
        for number, _ in used:
            weights.append([0.0, 0.0])
            if len(used) > 1:
                others = np.where(choice.way == number, 0.0, -1.0)
                features.append(Feature(node.answer, "of_class", values=tuple(others.tolist())))
        # every further feature is the score of one way
        wide = np.zeros((len(weights), len(features)))
        wide[:, :2] = weights
        for number in range(2, len(features)):
            wide[number - 1, number] = 1.0
        return Rule(
            node.answer,
            (STOP, *(after for _, after in used)),
            tuple(tuple(row) for row in wide.tolist()),
            (0.0,) * len(wide),
            tuple(features),
        )
