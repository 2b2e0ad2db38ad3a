"""Features a rule may look at: numbers read from the answers already on the trail."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.answers import Answers
from policy.errors import InputError
from policy.means import Mean
from policy.schema import STRICT

Kind = Literal[
    "max_probability",
    "margin",
    "entropy",
    "vote",
    "probability",
    "class_probability",
    "tail",
    "log_tail",
    "agreement",
    "overlap",
    "support",
    "of_class",
    "score",
]

_LEAST = 1e-4  # of a tail, before its logarithm: below lies float32's rounding


@dataclass(frozen=True, config=STRICT)
class Feature:
    """One number per image from one answer.

    max_probability: how sure, in [0, 1] (Hendrycks & Gimpel 2017). margin: best minus second-best
    probability. entropy: in nats. vote: share of the answers on the trail up to this one that agree
    on the commonest class (Ilhan et al. 2024). probability: of the class at rank `index`.
    class_probability: of class `index`. tail: probability left by the `index` best classes, and
    log_tail its logarithm. of_class: `values` at the best class, the last of them for classes
    beyond. score: how the rule at `answer` scored its first action, clamped to [0, 1] (Ilhan et
    al. 2024).

    Against an earlier answer, `other`: agreement: 1 where both have the same best class. overlap:
    share of the `index` best classes in common. support: what `other` gives to the best class of
    `answer`, 0 where that is not among its own `index` best.

    `mean` reads the weighted mean of the trail up to `answer` in place of the answer itself.
    """

    answer: str
    kind: Kind
    index: int = 0
    other: str | None = None
    mean: bool = False
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would count from the end, and what has a part too many or too few."""
        least = 1 if self.kind in _OF_BEST else 0
        if self.index < least:
            raise InputError(
                f"feature {self.kind!r} has index {self.index}; wanted at least {least}"
            )
        if self.mean and self.kind in ("vote", "score"):
            raise InputError(f"feature {self.kind!r} of a mean; a mean has none of its own")
        if (self.other is not None) != (self.kind in _COMPARING):
            raise InputError(
                f"feature {self.kind!r} has other {self.other!r}; wanted another answer for "
                f"{', '.join(_COMPARING)}, None for the rest"
            )
        if bool(self.values) != (self.kind == "of_class"):
            raise InputError(
                f"feature {self.kind!r} has {len(self.values)} values; wanted one for every class "
                "for of_class, none for the rest"
            )

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The answers that must be on the trail."""
        return (self.answer,) if self.other is None else (self.answer, self.other)

    @property
    def classes_needed(self) -> int | None:
        """How many of the best classes it reads; None for all of them."""
        match self.kind:
            case "class_probability":
                return None
            case "probability":
                return self.index + 1
            case "margin":
                return 2
            case "tail" | "log_tail" | "overlap" | "support":
                return self.index
            case _:
                return 1


_COMPARING = ("agreement", "overlap", "support")
_OF_BEST = ("tail", "log_tail", "overlap", "support")


@plain_dataclass(frozen=True)
class Seen:
    """The answers on a trail in the order they were got, and what is derived from them.

    `score_of` gives [n], how the rule at an answer of the trail scored its first action.
    """

    trail: Mapping[str, Answers]
    mean: Mean | None = None
    score_of: Callable[[str], NDArray[np.float64]] | None = None

    def upto(self, answer: str) -> dict[str, Answers]:
        """The part of the trail that ends with this answer."""
        names = list(self.trail)
        return {name: self.trail[name] for name in names[: names.index(answer) + 1]}


def feature_values(features: Sequence[Feature], seen: Seen) -> NDArray[np.float64]:
    """[n, features], from the answers got so far."""
    rows = len(next(iter(seen.trail.values())))
    values = np.empty((rows, len(features)), dtype=np.float64, order="F")
    means: dict[str, Answers] = {}
    for column, feature in enumerate(features):
        absent = [answer for answer in feature.looks_at if answer not in seen.trail]
        if absent:
            raise InputError(
                f"a rule looks at answer {absent[0]!r}, which is not on the trail "
                f"{' > '.join(seen.trail)}"
            )
        answers = seen.trail[feature.answer]
        if feature.mean:
            if feature.answer not in means:
                means[feature.answer] = _mean(feature.answer, seen)
            answers = means[feature.answer]
        values[:, column] = _value(feature, answers, seen)
    return values


def _mean(answer: str, seen: Seen) -> Answers:
    if seen.mean is None:
        raise InputError(
            f"a rule looks at the mean of the trail to {answer!r}, but the policy has no weights "
            "for a mean"
        )
    return seen.mean.of(seen.upto(answer))


def _value(feature: Feature, answers: Answers, seen: Seen) -> NDArray[np.floating]:
    needed = feature.classes_needed or 1
    other = answers if feature.other is None else seen.trail[feature.other]
    held = min(answers.classes.shape[1], other.classes.shape[1])
    if held < needed:
        raise InputError(
            f"feature {feature.kind!r} of {feature.answer!r} needs the {needed} best classes; the "
            f"answers hold {held}. Extract with a larger --topk."
        )
    if feature.kind in _OF_ONE:
        return _OF_ONE[feature.kind](feature, answers)
    if feature.kind == "vote":
        return _vote(seen.upto(feature.answer))
    if feature.kind == "score":
        return _score(feature, seen)
    return _compared(feature, answers, other)


def _tail(feature: Feature, answers: Answers) -> NDArray[np.floating]:
    rest = np.ones(len(answers))
    for rank in range(min(feature.index, answers.probabilities.shape[1])):
        rest -= answers.probabilities[:, rank]  # by columns: sums along short rows are slow
    left: NDArray[np.float64] = np.maximum(rest, 0)
    return left


def _of_class(feature: Feature, answers: Answers) -> NDArray[np.floating]:
    best = np.minimum(answers.classes[:, 0], len(feature.values) - 1)
    found: NDArray[np.float64] = np.asarray(feature.values, dtype=np.float64)[best]
    return found


def _class_probability(feature: Feature, answers: Answers) -> NDArray[np.floating]:
    hit = answers.classes == feature.index
    if not hit.any(axis=1).all():
        raise InputError(
            f"class {feature.index} is not among the classes recorded for {feature.answer!r}; "
            "per-class features need a table extracted with --topk all"
        )
    found: NDArray[np.float64] = np.where(hit, answers.probabilities, 0).sum(axis=1, dtype=float)
    return found


_OF_ONE: Mapping[str, Callable[[Feature, Answers], NDArray[np.floating]]] = {
    "max_probability": lambda _, answers: answers.probabilities[:, 0],
    "margin": lambda _, answers: answers.probabilities[:, 0] - answers.probabilities[:, 1],
    "entropy": lambda _, answers: answers.entropy,
    "probability": lambda feature, answers: answers.probabilities[:, feature.index],
    "class_probability": _class_probability,
    "tail": _tail,
    "log_tail": lambda feature, answers: np.log(np.maximum(_tail(feature, answers), _LEAST)),
    "of_class": _of_class,
}


def _vote(trail: Mapping[str, Answers]) -> NDArray[np.float64]:
    best = np.stack([answers.classes[:, 0] for answers in trail.values()], axis=1)
    agreeing = (best[:, :, None] == best[:, None, :]).sum(axis=2)
    commonest: NDArray[np.float64] = agreeing.max(axis=1) / len(trail)
    return commonest


def _score(feature: Feature, seen: Seen) -> NDArray[np.float64]:
    if seen.score_of is None:
        raise InputError(
            f"a rule looks at the score of the rule at {feature.answer!r}; scores exist only "
            "inside a policy"
        )
    clamped: NDArray[np.float64] = np.clip(seen.score_of(feature.answer), 0, 1)
    return clamped


def _compared(feature: Feature, answers: Answers, other: Answers) -> NDArray[np.floating]:
    k = feature.index
    match feature.kind:
        case "agreement":
            same: NDArray[np.bool_] = answers.classes[:, 0] == other.classes[:, 0]
            return same.astype(np.float64)
        case "overlap":
            common = np.zeros(len(answers))
            for one, another in itertools.product(range(k), repeat=2):
                common += answers.classes[:, one] == other.classes[:, another]
            return common / k
        case _:
            given = np.zeros(len(answers))
            for rank in range(k):
                hit = other.classes[:, rank] == answers.classes[:, 0]
                given += np.where(hit, other.probabilities[:, rank], 0)
            return given
