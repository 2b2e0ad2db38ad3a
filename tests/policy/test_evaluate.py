from dataclasses import replace

import numpy as np
import pytest
import tiny

from policy.answers import Answers
from policy.evaluate import evaluate, measure, realised
from policy.graph import Stage, StageGraph
from policy.losses import Metric, Objective, regret, wrong
from policy.means import Mean
from policy.mixture import Mixture, Routing
from policy.problem import Problem
from policy.rules import Policy, Rule, always
from policy.simulate import simulate

EXIT, SMALL, BIG = tiny.GRAPH.answers
N = 300


def wrong_by_hand(policy: Policy, on: Problem, k: int) -> np.ndarray:
    """[n], whether the k best classes of the last answer on the trail lack the label."""
    routes = simulate(policy, on.outputs)
    last = [routes.trails[i][-1] for i in routes.trail_of]
    return np.array(
        [
            label not in on.outputs[name].classes[i, :k]
            for i, (name, label) in enumerate(zip(last, on.labels, strict=True))
        ]
    )


def table(seed: int, k: int | None = None) -> Problem:
    return tiny.problem(seed, N, k, unit="ms")


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_losses_are_those_counted_by_hand(seed: int) -> None:
    on = table(seed)
    found = evaluate(tiny.POLICY, on)
    ours, full = (wrong_by_hand(policy, on, 1) for policy in (tiny.POLICY, always(on.graph, BIG)))
    assert found.top1 == pytest.approx(1 - ours.mean())
    assert found.top1_loss == pytest.approx(ours.mean() - full.mean())
    assert found.top1_excess == pytest.approx((ours & ~full).mean())
    assert found.top1_excess > found.top1_loss
    assert (found.n, found.unit) == (N, "ms")


def test_five_of_four_classes_are_always_right() -> None:
    found = evaluate(tiny.POLICY, table(0))
    assert (found.top5, found.top5_loss, found.top5_excess) == (1.0, 0.0, 0.0)


def test_top5_counts_the_five_best_of_more_classes() -> None:
    on = table(0)
    rng = np.random.default_rng(0)
    ranks = {name: np.argsort(rng.random((N, 9)))[:, :6].astype(np.int32) for name in on.outputs}
    even = np.full((N, 6), 0.1, np.float32)
    outputs = {name: Answers(rank, even, np.ones(N, np.float32)) for name, rank in ranks.items()}
    on = replace(on, outputs=outputs)
    found = evaluate(always(on.graph, SMALL), on)
    ours, full = (wrong_by_hand(always(on.graph, name), on, 5) for name in (SMALL, BIG))
    assert found.top5 == pytest.approx(1 - ours.mean())
    assert found.top5_loss == pytest.approx(ours.mean() - full.mean())
    assert found.top5_excess == pytest.approx((ours & ~full).mean())


def test_cost_and_speedup_are_means_over_images() -> None:
    on = table(1)
    found = evaluate(tiny.POLICY, on)
    assert found.cost == pytest.approx(simulate(tiny.POLICY, on.outputs).cost.mean())
    assert found.speedup == pytest.approx(9.5 / found.cost)


def test_usage_says_who_got_and_who_was_labelled_by_each_answer() -> None:
    on = table(2)
    routes = simulate(tiny.POLICY, on.outputs)
    trails = [routes.trails[i] for i in routes.trail_of]
    usage = evaluate(tiny.POLICY, on).usage
    for name, use in usage.items():
        assert use.samples == pytest.approx(np.mean([name in trail for trail in trails]))
        assert use.exits == pytest.approx(np.mean([name == trail[-1] for trail in trails]))
    assert sum(use.exits for use in usage.values()) == pytest.approx(1)
    assert sum(use.cost for use in usage.values()) == pytest.approx(1)
    assert usage[EXIT].cost == pytest.approx(2.75 / routes.cost.mean())


def test_an_answer_that_is_never_got_is_used_by_none() -> None:
    usage = evaluate(always(tiny.GRAPH, SMALL), table(0)).usage
    assert (usage[BIG].samples, usage[BIG].exits, usage[BIG].cost) == (0, 0, 0)
    assert (usage[SMALL].samples, usage[SMALL].exits, usage[SMALL].cost) == (1, 1, 1)


def test_the_full_network_loses_nothing_and_saves_nothing() -> None:
    found = evaluate(always(tiny.GRAPH, BIG), table(0))
    assert (found.cost, found.full_cost, found.speedup) == (9.5, 9.5, 1.0)
    assert (found.top1_loss, found.top1_excess) == (0, 0)


def test_labels_for_nothing_have_no_speedup() -> None:
    free = StageGraph(tuple(Stage(name, 0.0, answers=True) for name in (EXIT, SMALL, BIG)), "ms")
    found = evaluate(always(free, EXIT), table(0))
    assert (found.cost, found.full_cost, found.speedup) == (0, 0, None)
    assert found.usage[EXIT].cost == 0


def test_too_few_classes_leave_top5_open_and_top1_as_it_is() -> None:
    few, all_classes = (evaluate(tiny.POLICY, table(0, k)) for k in (2, None))
    assert (few.top5, few.top5_loss, few.top5_excess) == (None, None, None)
    assert replace(few, top5=1.0, top5_loss=0.0, top5_excess=0.0) == all_classes


def test_answers_of_different_depth_are_compared_on_the_classes_all_have() -> None:
    on = table(0)
    on = replace(on, outputs={**on.outputs, SMALL: on.outputs[SMALL].top(2)})
    assert evaluate(tiny.POLICY, on).top1 == evaluate(tiny.POLICY, table(0)).top1


MIXTURE = Mixture(tiny.POLICY, tiny.EVERYTHING, share=0.5)
ROUTINGS: list[Routing] = [
    tiny.POLICY,
    *(always(tiny.GRAPH, name) for name in tiny.GRAPH.answers),
    replace(tiny.EVERYTHING, mean=replace(tiny.EVERYTHING.mean, k=None)),
]


@pytest.mark.parametrize("metric", ["top1", "top5"])
@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_points_are_measured_as_policies_are_evaluated(
    metric: Metric, objective: Objective
) -> None:
    on = replace(table(3), metric=metric, objective=objective)
    routings = [*ROUTINGS, *([MIXTURE] if metric == "top1" else [])]
    points = measure(routings, on)
    assert [point.policy for point in points] == routings
    for point in points:
        found = evaluate(point.policy, on)
        assert point.cost == pytest.approx(found.cost)
        assert point.regret == pytest.approx(getattr(found, f"{metric}_{objective}"))


def test_a_point_of_one_answer_has_its_regret() -> None:
    on = table(4)
    (point,) = measure([always(on.graph, EXIT)], on)
    full = on.outputs[BIG]
    assert point.regret == regret(on.outputs[EXIT], full, on.labels, "top1", "excess").mean()
    assert point.regret <= wrong(on.outputs[EXIT], on.labels, "top1").mean()


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_what_is_realised_is_found_image_by_image(objective: Objective) -> None:
    on = replace(table(5), objective=objective)
    cost, lost = realised(tiny.POLICY, on)
    np.testing.assert_array_equal(cost, simulate(tiny.POLICY, on.outputs).cost)
    ours, full = (wrong_by_hand(p, on, 1) for p in (tiny.POLICY, always(on.graph, BIG)))
    difference = ours.astype(float) - full.astype(float)
    wanted = np.maximum(difference, 0) if objective == "excess" else difference
    np.testing.assert_array_equal(lost, wanted)
    assert set(lost) == ({0, 1} if objective == "excess" else {-1, 0, 1})


def test_an_averaged_label_is_what_is_judged() -> None:
    on = table(6)
    every = tuple(Rule(a, (b,), ((),), (0.0,)) for a, b in ((EXIT, SMALL), (SMALL, BIG)))
    mean = Mean((("small", 2.0), ("big", 3.0)), None)
    found = evaluate(Policy(on.graph, EXIT, every, mean), on)
    given = mean.of(on.outputs)
    assert found.top1 == pytest.approx(1 - wrong(given, on.labels, "top1").mean())
    lost = regret(given, on.outputs[BIG], on.labels, "top1", "loss")
    assert found.top1_loss == pytest.approx(lost.mean())
    assert found.top1 != evaluate(always(on.graph, BIG), on).top1


def test_a_mixture_uses_what_its_arms_use() -> None:
    on = table(7)
    mixture = Mixture(tiny.POLICY, always(on.graph, BIG), share=0.5)
    dear = mixture.arm_of(on.keys) == 1
    found = evaluate(mixture, on)
    whole = simulate(tiny.POLICY, on.outputs)
    cost = np.where(dear, 9.5, whole.cost)
    assert found.cost == pytest.approx(cost.mean())
    assert found.usage[EXIT].samples == pytest.approx((~dear).mean())
    assert sum(use.exits for use in found.usage.values()) == pytest.approx(1)
    assert sum(use.cost for use in found.usage.values()) == pytest.approx(1)
