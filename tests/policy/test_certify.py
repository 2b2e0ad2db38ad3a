import numpy as np
import pytest
from populations import BOTH, GRAPH, population, thresholds

from policy.bounds import upper_bound
from policy.certify import Certificate, certify, safe_to_bold
from policy.errors import InputError
from policy.evaluate import Point, realised
from policy.losses import Objective
from policy.mixture import Mixture
from policy.rules import always
from policy.schema import from_json, to_json


def test_the_certificate_says_what_was_seen() -> None:
    on = population("excess")
    kept, found = certify(thresholds(), on, 0.05, 0.95)
    costs, regret = realised(kept, on)
    assert found == Certificate(
        metric="top1",
        objective="excess",
        max_loss=0.05,
        confidence=0.95,
        n=4000,
        test="exact binomial",
        tested=7,
        passed=True,
        regret=float(regret.mean()),
        bound=upper_bound(regret, "excess", 0.95),
        cost=float(costs.mean()),
    )
    assert found.regret < found.bound <= 0.05
    assert found.text == (
        "top1 excess at most 0.05, certified at 95% confidence on 4000 images (exact binomial): "
        f"measured {found.regret:.4g}, bound {found.bound:.4g}, 7 policies tested"
    )


def test_the_walk_stops_at_the_first_policy_that_fails() -> None:
    on = population("excess")
    safe, *_, bold = thresholds()
    _, found = certify([bold, *thresholds()], on, 0.05, 0.95)
    assert (found.tested, found.passed) == (1, False)
    kept, found = certify([thresholds()[3], bold, thresholds()[5]], on, 0.05, 0.95)
    assert (kept, found.tested) == (thresholds()[3], 2)
    assert safe not in (kept, bold)


def test_of_those_that_pass_the_cheapest_is_kept() -> None:
    policies = thresholds()[2:6]
    kept, found = certify(policies[::-1], population("excess"), 0.05, 0.95)
    assert (kept, found.tested) == (policies[-1], 4)


@pytest.mark.parametrize("objective", BOTH)
def test_if_nothing_passes_the_answer_is_always_the_full_network(objective: Objective) -> None:
    on = population(objective)
    kept, found = certify(thresholds(), on.take(np.arange(20)), 0.01, 0.95)
    assert kept == always(GRAPH, "full")
    assert (found.passed, found.tested, found.regret, found.bound, found.cost) == (
        False,
        1,
        0.0,
        0.0,
        9.0,
    )
    assert found.text == (
        "always the full network: none of 1 policies tested on 20 images is cheaper and proved to "
        f"keep top1 {objective} at most 0.01 at 95% confidence"
    )


def test_a_policy_that_passes_but_saves_nothing_is_not_kept() -> None:
    never_stops = thresholds()[0]
    kept, found = certify([never_stops], population("excess"), 0.05, 0.95)
    assert (kept, found.passed) == (always(GRAPH, "full"), False)


def test_the_full_network_needs_no_proof() -> None:
    full = always(GRAPH, "full")
    few = population("excess").take(np.arange(200))
    kept, found = certify([full, thresholds()[2]], few, 0.1, 0.95)
    assert (kept, found.tested) == (thresholds()[2], 1)


@pytest.mark.parametrize("objective", BOTH)
def test_without_policies_or_images_the_full_network_is_left(objective: Objective) -> None:
    none = population(objective).take(np.arange(0))
    assert certify([], population(objective), 0.1, 0.95)[1].tested == 0
    assert not certify(thresholds(), none, 0.1, 0.95)[1].passed


def test_the_order_of_images_changes_nothing() -> None:
    on = population("loss")
    turned = on.take(np.arange(len(on))[::-1])
    assert certify(thresholds(), on, 0.03, 0.95) == certify(thresholds(), turned, 0.03, 0.95)


def test_gains_count_by_loss_and_not_by_excess() -> None:
    saved = [certify(thresholds(), population(o), 0.05, 0.95)[1].cost for o in BOTH]
    assert saved[1] < saved[0]


def test_a_mixture_is_certified_by_what_its_arms_realise() -> None:
    on = population("excess")
    bold, safe = thresholds()[8], thresholds()[2]
    mixture = Mixture(bold, safe, share=0.8)
    kept, found = certify([safe, mixture], on, 0.05, 0.95)
    assert kept == mixture
    assert found.regret == realised(mixture, on)[1].mean()


def test_a_certificate_survives_its_file() -> None:
    _, found = certify(thresholds(), population("loss"), 0.05, 0.95)
    assert from_json(Certificate, to_json(found), "policy.json") == found


def test_policies_are_tested_by_rising_loss_and_equals_from_the_dearest() -> None:
    a, b, c, d, e, f = thresholds()[:6]
    points = [
        Point(a, 5.0, 0.02),
        Point(b, 8.0, 0.0),
        Point(c, 6.0, 0.0),
        Point(d, 3.0, 0.02),
        Point(e, 6.0, 0.01),  # costs what another does that loses nothing
        Point(f, 4.0, 0.5),
        Point(b, 8.0, 0.0),
    ]
    assert safe_to_bold(points) == [b, c, a, d]
    assert safe_to_bold([]) == []


@pytest.mark.parametrize("max_loss", [-0.01, 1.01, float("nan")])
def test_a_loss_that_is_no_fraction_is_refused(max_loss: float) -> None:
    with pytest.raises(InputError, match=f"a loss of at most {max_loss} was .* wanted a fraction"):
        certify([], population("excess"), max_loss, 0.95)


@pytest.mark.parametrize("confidence", [0.05, 0.9999, 95, float("nan")])
def test_a_confidence_that_cannot_be_meant_or_met_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match=f"a confidence of {confidence} was .* from 0.5 to 0.999"):
        certify([], population("excess"), 0.1, confidence)
