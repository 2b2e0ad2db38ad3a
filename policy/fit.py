"""From the parts of a table to one policy: propose, choose, certify.

    parts = problem.split({"fit": 0.5, "choose": 0.25, "certify": 0.25})
    fitted = fit(parts, ["dag"], Goal(max_loss=0.01, confidence=0.95))

Methods see the part `fit` only; what they propose is measured and chosen on `choose`; `certify` is
seen by the certificate alone.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from policy.certify import Certificate, certify, check_asked, safe_to_bold
from policy.choose import within_budget, within_loss
from policy.errors import InputError
from policy.evaluate import Point, measure
from policy.methods import METHODS, MOST_FITTED, Name
from policy.mixture import Routing
from policy.problem import Problem
from policy.rules import always
from policy.soundness import check_keys, check_size, check_sound

LEAST_IMAGES = 40

_MOST_MEASURED = 100_000  # images to choose on at most: the noise left is 0.03 points


@dataclass(frozen=True)
class Goal:
    """What is asked for: at most `max_loss` (a fraction), or the best for `budget` a image.

    With `confidence` the loss is certified. Raises InputError unless exactly one of the two is
    given, and on a confidence without a loss.
    """

    max_loss: float | None = None
    budget: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        if (self.max_loss is None) == (self.budget is None):
            found = "neither" if self.max_loss is None else "both"
            raise InputError(f"give one of --max-loss and --budget; found {found}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise InputError(f"--max-loss {self.max_loss}: wanted a fraction from 0 to 1")
        if self.confidence is not None and self.max_loss is None:
            raise InputError(
                "--confidence says how sure to be of a --max-loss; found --budget. Leave it out."
            )
        if self.confidence is not None:
            check_asked(self.max_loss or 0.0, self.confidence)


@dataclass(frozen=True)
class Fit:
    """The policy, the method that proposed it, and all that was proposed, by method.

    `proposed` and `expected` (the policy itself) are measured on the part that chooses.
    """

    policy: Routing
    method: str
    proposed: Mapping[str, Sequence[Point]]
    expected: Point
    certificate: Certificate | None


def fit(parts: Mapping[str, Problem], methods: Iterable[Name], goal: Goal) -> Fit:
    """Fit by each method and keep the best policy of all.

    `parts` are "fit", "choose" and, for a goal with a confidence, "certify"; further ones are only
    checked. Raises InputError on parts that share keys or are too small, and before a certificate
    on all that soundness.check_sound refuses.
    """
    _check(parts, goal)
    problem = parts["fit"].at_most(MOST_FITTED)
    chooser = parts["choose"].at_most(_MOST_MEASURED)
    full = measure([always(problem.graph, problem.graph.full)], chooser)
    with threadpool_limits(limits=1):  # many small products: threads would only wait for another
        proposed: dict[str, list[Point]] = {
            name: measure(dict.fromkeys(METHODS[name](problem)), chooser) for name in methods
        }
    points = list({p.policy: p for p in itertools.chain(full, *proposed.values())}.values())
    certificate: Certificate | None = None
    if goal.budget is not None:
        best = within_budget(points, goal.budget, problem.seed)
    elif goal.confidence is None:
        best = within_loss(points, goal.max_loss or 0.0)
    else:
        policy, certificate = certify(
            safe_to_bold(points), parts["certify"], goal.max_loss or 0.0, goal.confidence
        )
        best = next(point for point in points if point.policy == policy)
    return Fit(best.policy, _author(best.policy, proposed), proposed, best, certificate)


def _author(policy: Routing, proposed: Mapping[str, Sequence[Point]]) -> str:
    """Who proposed it first; of a mixture, who proposed its arms."""
    author: dict[Routing, str] = {}
    for name, points in proposed.items():
        author = {point.policy: name for point in points} | author
    names = [author[part] for part in (policy, *policy.arms) if part in author]
    return "+".join(dict.fromkeys(names)) or "single"


def _check(parts: Mapping[str, Problem], goal: Goal) -> None:
    wanted = ["fit", "choose", *(["certify"] if goal.confidence is not None else [])]
    for name in wanted:
        n = len(parts[name]) if name in parts else 0
        if n < LEAST_IMAGES:
            raise InputError(
                f"only {n} labelled images to {name} with; wanted at least {LEAST_IMAGES}. Extract "
                "more, or change the shares of the parts."
            )
    if goal.confidence is None:
        check_keys(parts)
        return
    check_keys(parts)
    check_sound({name: parts[name] for name in wanted})
    certify_on = parts["certify"]
    check_size(len(certify_on), certify_on.objective, goal.max_loss or 0.0, goal.confidence)
