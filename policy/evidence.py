"""What a learned rule looks at: the features of all answers that are on every trail to it."""

from collections.abc import Iterator, Mapping, Sequence

from policy.answers import Answers
from policy.features import Feature
from policy.means import Mean

_BEST = 5  # classes whose probabilities are summed or compared


def evidence(
    answers: Sequence[str], outputs: Mapping[str, Answers], mean: Mean | None
) -> tuple[Feature, ...]:
    """The confidences of each answer, and how the last one compares with those before it.

    `answers` are in the order in which they are got; a `mean` adds its confidences.
    Only what every table can give is used: with one class recorded, entropy and best probability.
    """
    *earlier, last = answers
    found = [feature for answer in answers for feature in confidences(answer, outputs[answer])]
    if earlier and mean is not None:
        found += confidences(last, outputs[last].top(mean.k), mean=True)
    k = min(_BEST, *(outputs[answer].classes.shape[1] for answer in answers))
    for other in earlier:
        found += comparisons(last, other, k)
    return tuple(found)


def confidences(answer: str, recorded: Answers, *, mean: bool = False) -> Iterator[Feature]:
    """Entropy and maximum probability first: what early exit has always looked at."""
    k = recorded.classes.shape[1]
    yield Feature(answer, "entropy", mean=mean)
    yield Feature(answer, "max_probability", mean=mean)
    yield Feature(answer, "log_tail", index=1, mean=mean)
    if k > 1:
        yield Feature(answer, "margin", mean=mean)
    if k >= _BEST:
        yield Feature(answer, "tail", index=_BEST, mean=mean)
        yield Feature(answer, "log_tail", index=_BEST, mean=mean)
        yield Feature(answer, "probability", index=_BEST - 1, mean=mean)


def comparisons(answer: str, other: str, k: int) -> Iterator[Feature]:
    """Whether two answers say the same."""
    yield Feature(answer, "agreement", other=other)
    yield Feature(answer, "support", index=k, other=other)
    if k > 1:
        yield Feature(answer, "overlap", index=k, other=other)
