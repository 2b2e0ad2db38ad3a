from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from real_data import DATA, needs

from policy import fit_eenet
from policy.answers import answers_from_logits, answers_from_probabilities
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.eenet_inputs import exits_of, features_at
from policy.eenet_scores import raw_scores, score_loss
from policy.eenet_thresholds import thresholds_by_share
from policy.errors import InputError
from policy.evaluate import evaluate, realised
from policy.features import Seen
from policy.fit_eenet import RESTARTS, alternate, propose, propose_for
from policy.fit_shares import geometric_shares, scored
from policy.graph import Stage, StageGraph
from policy.problem import Problem
from policy.rules import Policy, always
from policy.simulate import simulate

PREDICTIONS = DATA / "predictions"
CHAIN = ("first", "second", "last")
GRAPH = StageGraph(
    (
        Stage("trunk", 1.0),
        Stage("first", 0.1, ("trunk",), answers=True),
        Stage("block", 1.0, ("trunk",)),
        Stage("second", 0.1, ("block",), answers=True),
        Stage("last", 2.0, ("block",), answers=True),
    ),
    unit="ms",
)
CLASSES = 5


def problem(
    n: int = 600,
    seed: int = 0,
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0),
    k: int | None = None,
) -> Problem:
    """Images of differing difficulty; the further exits see their class clearer."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    ease = rng.gamma(1.5, size=n)
    outputs = {}
    noise = rng.normal(size=(n, CLASSES))
    for name, strength in zip(CHAIN, strengths, strict=True):
        logits = noise + rng.normal(size=(n, CLASSES))
        logits[np.arange(n), labels] += strength * ease
        outputs[name] = answers_from_logits(logits.astype(np.float32), k)
    return Problem(GRAPH, [f"{seed}-{row}" for row in range(n)], labels, outputs)


def cost_of(policy: Policy, images: Problem) -> float:
    return float(realised(policy, images)[0].mean())


@pytest.mark.parametrize("budget", [1.3, 2.0, 3.0])
@pytest.mark.parametrize("k", [None, 3])
def test_the_budget_is_met_on_the_images_it_is_fitted_on(budget: float, k: int | None) -> None:
    images = problem(k=k)

    policy = propose_for(images, budget, CHAIN)

    assert cost_of(policy, images) == pytest.approx(budget, rel=2e-3)
    assert policy.rules[0].features[1].kind == "entropy"


@pytest.mark.slow
def test_on_other_images_the_budget_is_missed_by_no_more_than_sampling_explains() -> None:
    missed = []
    for seed in range(6):
        images, others = problem(1000, 2 * seed), problem(20_000, 2 * seed + 1)
        policy = propose_for(images, 2.0, CHAIN)
        spread = realised(policy, others)[0].std() * np.sqrt(1 / 1000 + 1 / 20_000)
        missed.append((cost_of(policy, others) - 2.0) / spread)

    assert np.abs(missed).max() < 3.5
    assert abs(np.mean(missed)) < 3.5 / np.sqrt(6)


def test_a_sweep_goes_from_the_full_network_to_the_cheapest_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit_eenet, "BUDGETS", 6)
    images = problem(300)

    policies = propose(images)

    costs = [cost_of(policy, images) for policy in policies]
    assert policies[0] == always(GRAPH, "last")
    assert policies[-1] == always(GRAPH, "first")
    assert costs == sorted(costs, reverse=True)
    assert len(set(policies)) == len(policies) == 8


def test_the_same_seed_finds_the_same_policy() -> None:
    images = problem(300)

    again = propose_for(images, 2.0, CHAIN)

    assert propose_for(images, 2.0, CHAIN) == again
    assert propose_for(replace(images, seed=1), 2.0, CHAIN) != again


def test_turns_lower_the_loss_of_the_scores_for_the_samples_each_exit_is_meant_for() -> None:
    exits = exits_of(problem(), CHAIN)

    turns = list(alternate(exits, 1.6, RESTARTS[0], np.random.default_rng(0)))

    first, last = turns[0], turns[-1]
    assert last.shares @ exits.costs == pytest.approx(1.6, rel=0.05)
    assert abs(last.shares @ exits.costs - 1.6) <= abs(first.shares @ exits.costs - 1.6) + 0.02
    inputs = np.column_stack([exits.exits[0].values, np.ones(len(exits))])
    constant = np.append(np.zeros(inputs.shape[1] - 1), exits.right[:, 0].mean())
    even = np.full(len(exits), 1 / len(exits))
    fitted = score_loss(last.scores.weights[0], inputs, exits.right[:, 0], even)[0]
    assert fitted < score_loss(constant, inputs, exits.right[:, 0], even)[0] - 0.05


def test_the_rules_score_what_was_fitted() -> None:
    images = problem(500)
    exits = exits_of(images, CHAIN)
    *_, scheduler = alternate(exits, 2.0, RESTARTS[0], np.random.default_rng(0))
    policy = propose_for(images, 2.0, CHAIN)
    trail = {name: images.outputs[name] for name in CHAIN[:2]}

    score = policy.rule["second"].features[-1]
    fitted = raw_scores(exits, scheduler.scores)

    assert (score.kind, score.answer) == ("score", "first")
    seen = policy.seen(trail)
    assert isinstance(seen, Seen)
    rule_scores = policy.rule["first"].scores(seen)[:, 0]
    assert np.corrcoef(rule_scores, fitted[:, 0])[0, 1] > 0.99


def test_a_saved_policy_routes_as_before(tmp_path: Path) -> None:
    images = problem(500)
    policy = propose_for(images, 2.0, CHAIN)
    write_bundle(str(tmp_path), Bundle(policy, ("a", "b", "c", "d", "e"), {}))

    loaded = read_bundle(str(tmp_path)).policy

    before, after = simulate(policy, images.outputs), simulate(loaded, images.outputs)
    assert loaded == policy
    assert after.trails == before.trails
    assert (after.trail_of == before.trail_of).all()


def test_it_beats_exits_drawn_by_lot_at_the_same_cost() -> None:
    images, others = problem(2000), problem(5000, seed=1)

    found = evaluate(propose_for(images, 2.0, CHAIN), others)

    alone = {name: evaluate(always(GRAPH, name), others) for name in CHAIN}
    share = (found.cost - 1.1) / (alone["last"].cost - 1.1)
    by_lot = (1 - share) * alone["first"].top1 + share * alone["last"].top1
    assert found.top1 > by_lot + 0.02


def test_an_exit_is_right_in_the_asked_metric() -> None:
    images = replace(problem(400, k=None), metric="top5")

    right = exits_of(images, CHAIN).right

    assert right.min() == 1.0  # one of five classes is always among the five best
    assert cost_of(propose_for(images, 2.0, CHAIN), images) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("strengths", [(-99.0, 2.0, 4.0), (2.0, 2.0, -99.0)])
def test_exits_that_are_never_right_still_meet_the_budget(
    strengths: tuple[float, ...],
) -> None:
    images = problem(400, strengths=strengths)

    policy = propose_for(images, 1.7, CHAIN)

    assert cost_of(policy, images) == pytest.approx(1.7, rel=0.01)


def test_exits_that_are_always_right_still_meet_the_budget() -> None:
    images = problem(400)
    first = images.outputs["first"]
    images = replace(images, outputs=dict.fromkeys(CHAIN, first), labels=first.classes[:, 0])

    policy = propose_for(images, 1.7, CHAIN)

    assert exits_of(images, CHAIN).right.min() == 1.0
    assert cost_of(policy, images) == pytest.approx(1.7, rel=0.01)


def test_where_all_answers_look_the_same_all_images_go_one_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit_eenet, "BUDGETS", 3)
    images = problem(100)
    same = answers_from_logits(np.tile(np.arange(CLASSES, dtype=np.float32), (100, 1)), None)
    images = replace(images, outputs=dict.fromkeys(CHAIN, same))

    costs = {cost_of(policy, images) for policy in propose(images)}

    assert {1.1, 4.0} <= {round(cost, 6) for cost in costs}
    assert len(costs) <= 4


def test_two_answers_are_a_chain() -> None:
    images = problem(600)

    policy = propose_for(images, 2.0, ("first", "last"))

    assert [rule.answer for rule in policy.rules] == ["first"]
    assert cost_of(policy, images) == pytest.approx(2.0, rel=2e-3)


def test_one_answer_is_always_given() -> None:
    images = problem(20)
    single = StageGraph((Stage("last", 1.0, answers=True),), "ms")
    images = Problem(single, images.keys, images.labels, {"last": images.outputs["last"]})

    assert propose(images) == [always(single, "last")]
    assert propose_for(images, 5.0) == always(single, "last")


def test_a_budget_at_either_end_needs_no_fit() -> None:
    images = problem(20)

    assert propose_for(images, 1.1, CHAIN) == always(GRAPH, "first")
    assert propose_for(images, 99.0, CHAIN) == always(GRAPH, "last")
    assert propose_for(images, 1.1) == always(GRAPH, "first")


def test_without_a_chain_the_best_of_several_is_taken() -> None:
    images = problem(800, strengths=(1.0, 0.0, 4.0))  # the second answer is of no use

    policy = propose_for(images, 2.5)

    assert [rule.answer for rule in policy.rules] == ["first"]
    assert policy.next_answers("first") == ("last",)
    assert cost_of(policy, images) == pytest.approx(2.5, rel=2e-3)


@pytest.mark.parametrize("budget", [1.0, float("nan")])
def test_a_budget_below_the_first_answer_is_refused(budget: float) -> None:
    with pytest.raises(InputError, match=r"'first', costs 1.1. Ask for at least that"):
        propose_for(problem(20), budget, CHAIN)


@pytest.mark.parametrize("chain", [(), ("first", "never")])
def test_a_chain_of_no_answers_is_refused(chain: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"a chain of .*; wanted one or more answers of"):
        propose_for(problem(20), 2.0, chain)


def test_a_chain_that_the_graph_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="no edge from 'second' to 'first'"):
        propose_for(problem(20), 2.0, ("second", "first"))


def test_probabilities_are_by_class_where_all_are_known_and_often_seen_else_by_rank() -> None:
    every, some = problem(500).outputs, problem(500, k=3).outputs
    few = problem(499).outputs

    by_class = [(feature.kind, feature.index) for feature in features_at(CHAIN[:2], every)]
    by_rank = [(feature.kind, feature.index) for feature in features_at(CHAIN[:1], some)]

    assert by_class[:3] == [("max_probability", 0), ("entropy", 0), ("vote", 0)]
    assert by_class[3:] == [("class_probability", number) for number in range(CLASSES)]
    assert by_rank[2:] == [("probability", 1), ("probability", 2)]
    assert {feature.kind for feature in features_at(CHAIN[:1], few)}.isdisjoint(
        {"class_probability"}
    )


COSTS_MS = {"resnet18": 0.6338, "resnet34": 1.0631, "resnet50": 2.1894, "resnet152": 4.7156}


def imagenet() -> tuple[Problem, Problem]:
    """Two halves of the recorded predictions."""
    outputs, labels, keys = {}, np.empty(0), ()
    for name in COSTS_MS:
        table = pq.read_table(PREDICTIONS / f"imagenet_val/{name}_pytorch.parquet")
        columns = (np.stack(table[c].to_numpy()) for c in ("classes", "probabilities"))
        outputs[name] = answers_from_probabilities(*columns)
        labels, keys = table["label"].to_numpy(), tuple(table["key"].to_pylist())
    stages = tuple(Stage(name, cost, answers=True) for name, cost in COSTS_MS.items())
    whole = Problem(StageGraph(stages, "ms"), keys, labels, outputs)
    parts = whole.split({"fit": 0.5, "test": 0.5})
    return parts["fit"], parts["test"]


@pytest.mark.slow
@needs("predictions", PREDICTIONS)
def test_on_imagenet_it_beats_geometric_shares_of_the_maximum_probability() -> None:
    fit, test = imagenet()
    chain = tuple(COSTS_MS)
    given = scored(fit, chain, "max_probability")
    geometric = [
        evaluate(given.policy(thresholds_by_share(given.scores, geometric_shares(4, ratio))), test)
        for ratio in np.logspace(-2, 0.5, 40)
    ]
    order = np.argsort([point.cost for point in geometric])
    gained = []
    for budget in (0.85, 1.05, 1.65):
        found = evaluate(propose_for(fit, budget, chain), test)
        assert found.cost == pytest.approx(budget, rel=0.04)
        costs, right = ([getattr(geometric[i], of) for i in order] for of in ("cost", "top1"))
        gained.append(found.top1 - np.interp(found.cost, costs, right))

    assert np.mean(gained) > 0.001
    assert min(gained) > -0.002
