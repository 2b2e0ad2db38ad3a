"""Features a rule may look at: numbers read from the answers already on the trail."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from policy.answers import Answers
from policy.errors import InputError
from policy.schema import STRICT

Kind = Literal["max_probability", "margin", "entropy", "vote", "probability", "class_probability"]


@dataclass(frozen=True, config=STRICT)
class Feature:
    """One number per image from one answer.

    max_probability: how sure, in [0, 1] (Hendrycks & Gimpel 2017). margin: best minus second-best
    probability. entropy: in nats. vote: share of the answers on the trail up to this one that agree
    on the commonest class (Ilhan et al. 2024). probability: of the class at rank `index`.
    class_probability: of class `index`.
    """

    answer: str
    kind: Kind
    index: int = 0

    def __post_init__(self) -> None:
        """Refuse what would count from the end."""
        if self.index < 0:
            raise InputError(f"feature {self.kind!r} has index {self.index}; wanted at least 0")


def feature_values(
    features: Sequence[Feature], trail: Mapping[str, Answers]
) -> NDArray[np.float64]:
    """[n, features]; `trail` holds the answers got so far, in the order they were got."""
    rows = len(next(iter(trail.values())))
    values = np.empty((rows, len(features)), dtype=np.float64)
    for column, feature in enumerate(features):
        if feature.answer not in trail:
            raise InputError(
                f"a rule looks at answer {feature.answer!r}, which is not on the trail "
                f"{' > '.join(trail)}"
            )
        values[:, column] = _value(feature, trail)
    return values


def _value(feature: Feature, trail: Mapping[str, Answers]) -> NDArray[np.floating]:
    answers = trail[feature.answer]
    match feature.kind:
        case "max_probability":
            return answers.probabilities[:, 0]
        case "margin":
            _want_classes(feature, answers, 2)
            return answers.probabilities[:, 0] - answers.probabilities[:, 1]
        case "entropy":
            return answers.entropy
        case "vote":
            return _vote(feature.answer, trail)
        case "probability":
            _want_classes(feature, answers, feature.index + 1)
            return answers.probabilities[:, feature.index]
        case _:
            return _class_probability(feature, answers)


def _want_classes(feature: Feature, answers: Answers, k: int) -> None:
    found = answers.classes.shape[1]
    if found < k:
        raise InputError(
            f"feature {feature.kind!r} of {feature.answer!r} needs the {k} best classes; the "
            f"answers hold {found}. Extract with a larger --topk."
        )


def _vote(answer: str, trail: Mapping[str, Answers]) -> NDArray[np.float64]:
    names = list(trail)
    seen = names[: names.index(answer) + 1]
    best = np.stack([trail[name].classes[:, 0] for name in seen], axis=1)
    agreeing = (best[:, :, None] == best[:, None, :]).sum(axis=2)
    commonest: NDArray[np.float64] = agreeing.max(axis=1) / len(seen)
    return commonest


def _class_probability(feature: Feature, answers: Answers) -> NDArray[np.float64]:
    hit = answers.classes == feature.index
    if not hit.any(axis=1).all():
        raise InputError(
            f"class {feature.index} is not among the classes recorded for {feature.answer!r}; "
            "per-class features need a table extracted with --topk all"
        )
    found: NDArray[np.float64] = np.where(hit, answers.probabilities, 0).sum(axis=1, dtype=float)
    return found
