from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny

from policy.evaluate import evaluate, measure
from policy.mixture import Mixture
from policy.offers import MOST, audit_cost, expected_cost, offer, offers, stage_shares
from policy.rules import always

PROBLEM = tiny.problem(0, 300)
POLICY = tiny.balanced(tiny.POLICY, PROBLEM.outputs)


@pytest.mark.parametrize(
    "policy",
    [POLICY, always(tiny.GRAPH, "small"), Mixture(always(tiny.GRAPH, "small"), POLICY, 0.3)],
    ids=["three ways", "always one", "mixture"],
)
def test_the_shares_of_the_stages_add_up_to_the_cost(policy: object) -> None:
    shares = stage_shares(policy, PROBLEM)
    assert shares["decode"] == pytest.approx(1)
    assert max(shares.values()) <= 1
    assert expected_cost(tiny.GRAPH, shares) == pytest.approx(evaluate(policy, PROBLEM).cost)


def test_a_stage_that_never_runs_is_left_out() -> None:
    assert "big" not in stage_shares(always(tiny.GRAPH, "small"), PROBLEM)


def test_other_prices_need_no_images() -> None:
    shares = stage_shares(POLICY, PROBLEM)
    dear = tiny.GRAPH.with_edges().with_costs(
        {stage.name: 3.0 for stage in tiny.GRAPH.stages}, "ms"
    )
    found = evaluate(replace(POLICY, graph=dear), replace(PROBLEM, graph=dear))
    assert expected_cost(dear, shares) == pytest.approx(found.cost)


def test_an_audit_pays_for_what_is_left_of_the_full_network() -> None:
    # decode is shared; big.input (0.5) and big (8) are left to all who exit at small
    shares = stage_shares(always(tiny.GRAPH, "small"), PROBLEM)
    assert audit_cost(tiny.GRAPH, shares, 0.1, "big") == pytest.approx(0.85)
    shares = stage_shares(always(tiny.GRAPH, "big"), PROBLEM)
    assert audit_cost(tiny.GRAPH, shares, 0.1, "big") == 0


def test_offers_are_the_undominated_ones_cheapest_first() -> None:
    cheap, dear = (always(tiny.GRAPH, name) for name in ("small", "big"))
    points = measure([dear, cheap, POLICY], PROBLEM)
    found = offers([points[:1], points[1:]], PROBLEM)
    assert found[-1] == offer(dear, PROBLEM)
    assert found[-1].regret == 0
    assert [o.cost for o in found] == sorted(o.cost for o in found)
    assert all(a.regret > b.regret for a, b in pairwise(found))


def test_no_more_offers_than_a_person_reads_the_ends_among_them() -> None:
    rng = np.random.default_rng(0)
    shares = np.sort(rng.uniform(size=40)).tolist()
    cheap, dear = (always(tiny.GRAPH, name) for name in ("small", "big"))
    points = measure([cheap, dear, *(Mixture(cheap, dear, s) for s in shares)], PROBLEM)
    found = offers([points], PROBLEM)
    assert 3 < len(found) <= MOST
    assert found[0] == offer(cheap, PROBLEM)
    assert found[-1].regret == 0


def test_where_nothing_was_proposed_nothing_is_offered() -> None:
    assert offers([], PROBLEM) == ()
