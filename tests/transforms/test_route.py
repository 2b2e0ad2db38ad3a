"""The promise of the product: the router does to every image what `simulate` says."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_routing import EXIT, IMAGES, NEAR, Counting, Run, near_a_cut, route, rows_of

from policy.answers import Answers, concatenate
from policy.features import Feature
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate
from transforms.prepare import Prepared
from transforms.route import Router


def test_the_policy_of_these_tests_takes_every_trail(
    policy: Policy, outputs: dict[str, Answers]
) -> None:
    routes = simulate(policy, outputs)
    trails = Counter(routes.trails[i] for i in routes.trail_of)
    assert set(trails) == set(policy.trails)
    assert min(trails.values()) > IMAGES // 20
    labels = {answer: outputs[answer].classes[:, 0] for answer in outputs}
    assert (labels[EXIT] != labels["big"]).mean() > 0.1
    assert near_a_cut(policy, outputs).mean() < 0.05


def test_the_router_does_what_simulate_says_row_for_row(
    run: Run, policy: Policy, outputs: dict[str, Answers]
) -> None:
    routes = simulate(policy, outputs)
    wanted = routes.answers(outputs, 2)
    near = near_a_cut(policy, outputs)
    compared = 0
    for row, trail, cost, label in rows_of(run.groups):
        if not near[row]:
            assert trail == routes.trails[routes.trail_of[row]], row
            assert cost == routes.cost[row], row
            assert label == wanted.classes[row, 0], row
            compared += 1
    assert compared == IMAGES - near.sum()


def test_each_image_comes_out_exactly_once(run: Run) -> None:
    assert sorted(row for row, *_ in rows_of(run.groups)) == list(range(IMAGES))


def test_probabilities_are_those_of_the_full_softmax(run: Run, outputs: dict[str, Answers]) -> None:
    for group in run.groups:
        whole = outputs[group.trail[-1]].take(np.array([item.row for item in group.items]))
        assert group.answers.probabilities.shape == (len(group.items), 2)
        np.testing.assert_allclose(
            group.answers.probabilities, whole.probabilities[:, :2], atol=1e-4
        )


@pytest.mark.parametrize("answer", [EXIT, "small", "big"])
def test_a_policy_of_one_answer_runs_its_stages_alone(
    counting: Counting, images: list[Prepared], outputs: dict[str, Answers], answer: str
) -> None:
    run = route(always(counting.graph, answer), counting, images[:50], 16, topk=4)
    needed = {stage.name for stage in counting.graph.needed((answer,))} - {"decode"}
    assert set(run.batches) == needed
    assert {group.trail for group in run.groups} == {(answer,)}
    order = [item.row for group in run.groups for item in group.items]
    labels = concatenate(group.answers for group in run.groups).classes[:, 0]
    margin = outputs[answer].probabilities[:, 0] - outputs[answer].probabilities[:, 1]
    clear = margin[order] > NEAR
    assert np.array_equal(labels[clear], outputs[answer].classes[order, 0][clear])


@pytest.mark.parametrize(
    ("kind", "index", "topk", "k"),
    [
        ("max_probability", 0, 1, 1),
        ("margin", 0, 1, 2),
        ("probability", 2, 1, 3),
        ("probability", 0, 3, 3),
        ("class_probability", 1, 1, None),
    ],
)
def test_as_many_classes_are_got_as_the_rules_and_the_labels_need(
    counting: Counting, images: list[Prepared], kind: str, index: int, topk: int, k: int | None
) -> None:
    rule = Rule(EXIT, (STOP, "big"), ((0.0,), (1.0,)), (0.3, 0.0), (Feature(EXIT, kind, index),))
    policy = Policy(counting.graph, EXIT, (rule,))
    with ThreadPoolExecutor(1) as pool:
        assert Router(policy, counting, 7, topk, pool).k == k
    groups = route(policy, counting, images[:40], 7, topk=topk).groups
    assert {group.answers.classes.shape[1] for group in groups} == {topk}
    assert sum(len(group.items) for group in groups) == 40
