"""Rules and policies: at each answer, which answer to get next, or stop."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.answers import Answers
from policy.errors import InputError
from policy.features import Feature, Seen, feature_values
from policy.graph import STOP as STOP  # noqa: PLC0414 - exported: the rules' word
from policy.graph import StageGraph, on_every_trail
from policy.means import Mean
from policy.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class Rule:
    """Linear functions of features, one per action; the highest wins, the first of equals.

    Action a scores `weights[a] . features + bias[a]`. A rule with one action is a constant.
    """

    answer: str
    actions: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    features: tuple[Feature, ...] = ()

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        wanted = (len(self.actions), len(self.features))
        shapes = {(len(self.weights), len(row)) for row in self.weights}
        if not self.actions or len(self.bias) != wanted[0] or shapes != {wanted}:
            raise InputError(
                f"rule at {self.answer!r}: wanted weights {wanted} and {wanted[0]} biases for "
                f"actions {self.actions}; found shapes {sorted(shapes)} and {len(self.bias)}"
            )

    def scores(self, seen: Seen) -> NDArray[np.float64]:
        """[n, actions], from the answers on the trail so far."""
        weights = np.asarray(self.weights, dtype=np.float64)
        bias = np.asarray(self.bias, dtype=np.float64)
        scores: NDArray[np.float64] = feature_values(self.features, seen) @ weights.T + bias
        return scores

    def distance_to_cut(self, seen: Seen) -> NDArray[np.float64]:
        """[n], how far the features may move before the winning action changes, in their units."""
        scores = self.scores(seen)
        if len(self.actions) == 1:
            return np.full(len(scores), np.inf)
        weights = np.asarray(self.weights)
        best = scores.argmax(axis=1)
        lead = scores.max(axis=1, keepdims=True) - scores
        slope = np.linalg.norm(weights[best][:, None, :] - weights[None], axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(slope > 0, lead / slope, np.inf)
        distance[np.arange(len(best)), best] = np.inf
        nearest: NDArray[np.float64] = distance.min(axis=1)
        return nearest


@dataclass(frozen=True, config=STRICT)
class Policy:
    """Which answer to start from and a rule at each answer that may lead on.

    An answer without a rule ends the trail. The label comes from the last answer, or from the
    weighted mean of the answers on the trail where there is a `mean`. Raises InputError if a rule
    leads where the graph has no edge, or looks at an answer that some trail to it has not got.
    """

    graph: StageGraph
    start: str
    rules: tuple[Rule, ...] = ()
    mean: Mean | None = None

    def __post_init__(self) -> None:
        """Refuse a policy that some image could not follow."""
        weighted = [name for name, _ in self.mean.weights] if self.mean else []
        for name in (self.start, *(rule.answer for rule in self.rules), *weighted):
            if name not in self.graph.answers:
                raise InputError(f"{name!r} is not an answer; answers are {self.graph.answers}")
        if len(self.rule) < len(self.rules):
            raise InputError("two rules at one answer; wanted at most one")
        for rule in self.rules:
            self._check_actions(rule)
        common = on_every_trail(self.reachable(self.start), self.next_answers)
        for answer, got in common.items():
            for feature in self.rule[answer].features if answer in self.rule else ():
                missing = [name for name in feature.looks_at if name not in got]
                if missing:
                    raise InputError(
                        f"the rule at {answer!r} looks at {missing[0]!r}, which some trail to it "
                        "has not got"
                    )
                self._check_derived(answer, feature)

    def _check_derived(self, answer: str, feature: Feature) -> None:
        """Refuse to look at a mean or a score that is not there."""
        if feature.mean and self.mean is None:
            raise InputError(f"the rule at {answer!r} looks at a mean; the policy has no weights")
        needed = feature.classes_needed
        if feature.mean and self.mean and self.mean.k and (needed is None or needed > self.mean.k):
            raise InputError(
                f"the rule at {answer!r} looks at {needed or 'all'} classes of a mean of the "
                f"{self.mean.k} best; wanted at most as many"
            )
        if feature.kind == "score" and (
            feature.answer == answer or feature.answer not in self.rule
        ):
            raise InputError(
                f"the rule at {answer!r} looks at the score of {feature.answer!r}; wanted an "
                "earlier answer with a rule"
            )

    def _check_actions(self, rule: Rule) -> None:
        allowed = (STOP, *self.graph.followers(rule.answer))
        wrong = [action for action in rule.actions if action not in allowed]
        if wrong or len(set(rule.actions)) < len(rule.actions):
            raise InputError(
                f"the rule at {rule.answer!r} has actions {rule.actions}; allowed, each once, are "
                f"{allowed}"
            )

    @functools.cached_property
    def rule(self) -> Mapping[str, Rule]:
        """The rules by the answer they sit at."""
        return {rule.answer: rule for rule in self.rules}

    @functools.cached_property
    def classes_needed(self) -> int | None:
        """How many of the best classes the rules and the mean look at; None for all of them."""
        needed = [feature.classes_needed for rule in self.rules for feature in rule.features]
        if self.mean is not None:
            needed.append(self.mean.k)
        counts = [k for k in needed if k is not None]
        return None if len(counts) < len(needed) else max(counts, default=1)

    @functools.cached_property
    def trails(self) -> tuple[tuple[str, ...], ...]:
        """Every trail an image can be on, shorter ones first."""
        found: list[tuple[str, ...]] = []
        at: list[tuple[str, ...]] = [(self.start,)]
        while at:
            found += at
            at = [(*trail, after) for trail in at for after in self.next_answers(trail[-1])]
        return tuple(found)

    def next_answers(self, answer: str) -> tuple[str, ...]:
        """The answers that may directly follow this one under this policy."""
        actions = self.rule[answer].actions if answer in self.rule else ()
        return tuple(action for action in actions if action != STOP)

    def reachable(self, answer: str) -> tuple[str, ...]:
        """The answer itself and all that may come after it, each before those that follow it."""
        found = {answer}
        for other in self.graph.reachable(answer):
            if other in found:
                found.update(self.next_answers(other))
        return tuple(other for other in self.graph.reachable(answer) if other in found)

    def seen(self, trail: Mapping[str, Answers]) -> Seen:
        """What the rules may look at once these answers are got."""
        known: dict[str, NDArray[np.float64]] = {}

        def score_of(answer: str) -> NDArray[np.float64]:
            if answer not in known:
                upto = Seen(Seen(trail).upto(answer), self.mean, score_of)
                known[answer] = self.rule[answer].scores(upto)[:, 0]
            return known[answer]

        return Seen(trail, self.mean, score_of)

    def split(self, trail: Mapping[str, Answers]) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Decide for n images with the same trail: each action taken and the rows that take it.

        This is the only place where a decision is made; `simulate` and the router both call it.
        """
        *_, answer = trail
        if answer not in self.rule:
            yield STOP, np.arange(len(trail[answer]))
            return
        rule = self.rule[answer]
        taken = rule.scores(self.seen(trail)).argmax(axis=1)
        for number, action in enumerate(rule.actions):
            rows = np.flatnonzero(taken == number)
            if rows.size:
                yield action, rows

    def label(self, trail: Mapping[str, Answers]) -> Answers:
        """The answer that n images get whose trail ends here; likewise the only place."""
        if self.mean is not None:
            return self.mean.of(trail)
        *_, last = trail.values()
        return last

    @property
    def arms(self) -> tuple["Policy", ...]:
        """The policies that images follow: this one (see mixture)."""
        return (self,)

    def arm_of(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """[n], which of the arms each image follows."""
        return np.zeros(len(keys), dtype=np.intp)


def always(graph: StageGraph, answer: str) -> Policy:
    """The policy that gets one answer for every image."""
    return Policy(graph=graph, start=answer)
