from dataclasses import replace

import numpy as np
import proposals
import pytest

from policy.errors import InputError
from policy.evaluate import measure
from policy.fit import Goal, fit
from policy.mixture import Mixture
from policy.problem import Problem
from policy.rules import always

PARTS = proposals.problem(2400).split({"fit": 0.4, "choose": 0.2, "certify": 0.2, "test": 0.2})
FULL = always(proposals.GRAPH, "c")


def test_the_policy_keeps_the_loss_on_the_part_that_chooses() -> None:
    fitted = fit(PARTS, ["search", "gain"], Goal(max_loss=0.03))
    (point,) = measure([fitted.policy], PARTS["choose"])
    assert point == fitted.expected
    assert point.regret <= 0.03
    everything = [p for points in fitted.proposed.values() for p in points]
    assert point.cost == min(p.cost for p in everything if p.regret <= 0.03)
    assert fitted.certificate is None


def test_the_author_is_named() -> None:
    fitted = fit(PARTS, ["single", "search"], Goal(max_loss=0.03))
    assert fitted.method == "search"
    assert fitted.policy in [point.policy for point in fitted.proposed["search"]]
    assert fit(PARTS, ["search"], Goal(max_loss=0.0)).method in ("search", "single")


def test_a_budget_is_met_on_images_not_fitted_on() -> None:
    fitted = fit(PARTS, ["single"], Goal(budget=5.0))
    assert isinstance(fitted.policy, Mixture)
    assert fitted.method == "single"
    (point,) = measure([fitted.policy], PARTS["test"])
    assert point.cost == pytest.approx(5.0, rel=0.1)


def test_a_certificate_comes_from_the_part_that_nothing_else_saw() -> None:
    fitted = fit(PARTS, ["search"], Goal(max_loss=0.1, confidence=0.9))
    assert fitted.certificate is not None
    assert fitted.certificate.passed
    assert fitted.certificate.n == len(PARTS["certify"])
    (point,) = measure([fitted.policy], PARTS["certify"])
    assert fitted.certificate.regret == point.regret <= 0.1


def test_what_cannot_be_certified_is_always_the_full_network() -> None:
    parts = {name: replace(part, objective="excess") for name, part in PARTS.items()}
    fitted = fit(parts, ["search"], Goal(max_loss=0.0065, confidence=0.95))
    assert fitted.certificate is not None
    assert not fitted.certificate.passed
    assert fitted.policy == FULL


def test_methods_never_see_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Problem] = []

    def propose(problem: Problem) -> list[object]:
        seen.append(problem)
        return [FULL]

    monkeypatch.setattr("policy.fit.METHODS", {"single": propose})
    fit(PARTS, ["single"], Goal(max_loss=0.1))
    assert [set(problem.keys) for problem in seen] == [set(PARTS["fit"].keys)]


def test_methods_get_no_more_images_than_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.fit.MOST_FITTED", 100)
    sizes: list[int] = []

    def propose(problem: Problem) -> list[object]:
        sizes.append(len(problem))
        return [FULL]

    monkeypatch.setattr("policy.fit.METHODS", {"single": propose})
    fit(PARTS, ["single"], Goal(max_loss=0.1))
    assert sizes == [100]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of --max-loss and --budget; found neither"),
        ({"max_loss": 0.1, "budget": 1.0}, "found both"),
        ({"max_loss": 1.1}, "--max-loss 1.1: wanted a fraction from 0 to 1"),
        ({"budget": 1.0, "confidence": 0.9}, "--confidence says how sure to be of a --max-loss"),
    ],
)
def test_goals_that_cannot_be_met_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Goal(**given)


def test_parts_that_are_missing_or_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="only 0 labelled images to certify with; wanted at least"):
        fit(
            {name: PARTS[name] for name in ("fit", "choose")},
            ["single"],
            Goal(max_loss=0.1, confidence=0.9),
        )
    few = PARTS | {"choose": PARTS["choose"].take(np.arange(39))}
    with pytest.raises(InputError, match="only 39 labelled images to choose with"):
        fit(few, ["single"], Goal(max_loss=0.1))


def test_parts_that_share_keys_are_refused() -> None:
    with pytest.raises(InputError, match="share"):
        fit(PARTS | {"choose": PARTS["fit"]}, ["single"], Goal(max_loss=0.1))
