"""Averaged labels, rules that look at everything, and mixtures are routed as simulated too."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from tiny_routing import EXIT, IMAGES, Counting, Run, near_a_cut, route, stripped

from policy.answers import Answers
from policy.features import Feature
from policy.mixture import Mixture, Routing
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate
from transforms.prepare import Prepared
from transforms.route import Router

KEYS = [f"s/{n}" for n in range(IMAGES)]
Table = dict[str, Answers]


@pytest.fixture(scope="module")
def everything(counting: Counting, outputs: Table) -> Policy:
    """tiny.EVERYTHING on the engine's own graph, with cuts where every action is taken."""
    return tiny.balanced(replace(tiny.EVERYTHING, graph=counting.graph), outputs)


@pytest.fixture(scope="module")
def routings(counting: Counting, policy: Policy, everything: Policy) -> dict[str, Routing]:
    """A policy with means, scores and comparisons, and mixtures of arms that start alike or not."""
    graph = counting.graph
    big = always(graph, "big")
    onward = Policy(graph, "small", (Rule("small", ("big",), ((),), (0.0,)),), everything.mean)
    return {
        "everything": everything,
        "same start": Mixture(policy, everything, 0.4),
        "cheap starts elsewhere": Mixture(everything, big, 0.5, seed=3),
        "dear starts elsewhere": Mixture(always(graph, EXIT), onward, 0.5),
        "both single": Mixture(always(graph, "small"), big, 0.25),
        "only cheap": Mixture(policy, big, 0.0),
        "only dear": Mixture(policy, everything, 1.0),
    }


NAMES = (
    "everything",
    "same start",
    "cheap starts elsewhere",
    "dear starts elsewhere",
    "both single",
    "only cheap",
    "only dear",
)


def near(routing: Routing, outputs: Table) -> NDArray[np.bool_]:
    """[n], where the arm that an image follows could fall either way."""
    by_arm = np.stack([near_a_cut(arm, outputs) for arm in routing.arms])
    return by_arm[routing.arm_of(KEYS), np.arange(IMAGES)]


def test_these_policies_take_every_trail(routings: dict[str, Routing], outputs: Table) -> None:
    for name in ("everything", "same start"):
        routes = simulate(routings[name], outputs, KEYS)
        taken = Counter((routes.arms[i], routes.trails[i]) for i in routes.trail_of)
        assert set(taken) == {(arm, t) for arm in routings[name].arms for t in arm.trails}
        assert min(taken.values()) > 4
    for routing in routings.values():
        assert near(routing, outputs).mean() < 0.15


@pytest.fixture(params=NAMES)
def routing(request: pytest.FixtureRequest, routings: dict[str, Routing]) -> Routing:
    return routings[request.param]


@pytest.mark.parametrize(("batch_size", "topk"), [(1, 4), (7, 1), (7, 3), (64, 4)])
def test_each_image_is_routed_as_simulated(
    routing: Routing,
    outputs: Table,
    counting: Counting,
    images: list[Prepared],
    batch_size: int,
    topk: int,
) -> None:
    run = route(routing, counting, images, batch_size, topk)
    routes = simulate(routing, outputs, KEYS)
    unsure, seen = near(routing, outputs), []
    for group in run.groups:
        for place, item in enumerate(group.items):
            seen.append(item.row)
            if unsure[item.row]:
                continue
            arm, trail = (of[routes.trail_of[item.row]] for of in (routes.arms, routes.trails))
            assert (group.trail, group.cost) == (trail, routes.cost[item.row])
            row = np.array([item.row])
            label = arm.label({answer: outputs[answer].take(row) for answer in trail}).top(topk)
            assert group.answers.classes[place].tolist() == label.classes[0].tolist()
            np.testing.assert_allclose(
                group.answers.probabilities[place], label.probabilities[0], atol=1e-4
            )
            assert group.answers.entropy[place] == pytest.approx(label.entropy[0], abs=1e-3)
    assert sorted(seen) == list(range(IMAGES))


def arms_of(run: Run, mixture: Mixture) -> dict[str, int]:
    """Which arm could have sent each image where it went."""
    trails = [set(arm.trails) for arm in mixture.arms]
    return {
        item.key: next(number for number, own in enumerate(trails) if group.trail in own)
        for group in run.groups
        for item in group.items
    }


@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_retry_in_another_order_sends_every_image_the_same_way(
    routings: dict[str, Routing], counting: Counting, images: list[Prepared], batch_size: int
) -> None:
    mixture = routings["both single"]
    assert isinstance(mixture, Mixture)
    runs = [route(mixture, counting, given, batch_size) for given in (images, images[::-1])]
    first, again = (arms_of(run, mixture) for run in runs)
    assert first == again
    assert [first[key] for key in KEYS] == mixture.arm_of(KEYS).tolist()


def test_the_mean_is_of_the_same_classes_whatever_the_labels_need(
    everything: Policy, counting: Counting, images: list[Prepared]
) -> None:
    mean = replace(tiny.EVERYTHING.mean, k=2)
    chain = (("small.block1.exit", "small"), ("small", "big"))
    rules = tuple(Rule(answer, (after,), ((),), (0.0,)) for answer, after in chain)
    policy = Policy(everything.graph, EXIT, rules, mean)
    one, all_classes = (route(policy, counting, images, 64, topk) for topk in (1, 4))
    for few, many in zip(one.groups, all_classes.groups, strict=True):
        assert many.answers.classes.shape[1] == 2
        np.testing.assert_array_equal(few.answers.classes, many.answers.classes[:, :1])
        np.testing.assert_array_equal(few.answers.probabilities, many.answers.probabilities[:, :1])


def test_no_stage_is_run_that_no_arm_asked_for(
    routings: dict[str, Routing], counting: Counting, images: list[Prepared]
) -> None:
    for routing in routings.values():
        run = route(routing, counting, images, 16)
        wanted: Counter[str] = Counter()
        for group in run.groups:
            for stage in routing.graph.needed(group.trail):
                wanted[stage.name] += len(group.items)
        assert wanted.pop("decode") == IMAGES
        assert run.images() == wanted


def test_batches_are_full_for_each_arm(
    routings: dict[str, Routing], counting: Counting, images: list[Prepared]
) -> None:
    run = route(routings["both single"], counting, images, 16)
    for stage in ("small", "big"):
        assert sum(size < 16 for size in run.batches[stage]) <= 1
    late = sum(len(group.items) for group in run.flushed)
    assert late <= 2 * 15


def test_the_inputs_of_both_first_answers_are_prepared(
    routings: dict[str, Routing], counting: Counting
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(routings["both single"], counting, 7, 2, pool)
        assert set(router.inputs) == set(counting.inputs)
        assert not router.later
        router = Router(routings["same start"], counting, 7, 2, pool)
        assert len(router.inputs) == 1
        assert router.later


def test_as_many_classes_are_got_as_either_arm_needs(
    routings: dict[str, Routing], counting: Counting, everything: Policy, policy: Policy
) -> None:
    narrow = replace(policy, mean=replace(tiny.EVERYTHING.mean, k=3))
    with ThreadPoolExecutor(1) as pool:
        assert Router(Mixture(policy, narrow, 0.5), counting, 7, 1, pool).k == 3
        assert Router(Mixture(policy, narrow, 0.5), counting, 7, 4, pool).k == 4
        assert Router(Mixture(everything, policy, 0.5), counting, 7, 1, pool).k is None
        assert Router(routings["both single"], counting, 7, 1, pool).k == 1


def waits(router: Router, items: list[Prepared]) -> dict[int, int]:
    """Row -> how many images came in before it came out, without a flush."""
    out: dict[int, int] = {}
    for now, item in enumerate(items):
        for group in router.feed(stripped(item, router)):
            out |= {done.row: now - done.row for done in group.items}
    return out


def test_images_of_a_rare_arm_wait_only_for_so_many_batches(
    counting: Counting, images: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.route.PATIENCE", 3)
    routing = Mixture(always(counting.graph, "small"), always(counting.graph, "big"), 0.04)
    rare = np.flatnonzero(routing.arm_of(KEYS))
    assert 3 < len(rare) < 20
    with ThreadPoolExecutor(1) as pool:
        found = waits(Router(routing, counting, 5, 1, pool), images)
    early = [int(row) for row in rare if row < IMAGES - 40]
    assert early
    assert max(found[row] for row in early) <= 4 * 5 + len(rare)


def test_images_of_a_rare_trail_wait_only_for_so_many_batches(
    counting: Counting, images: list[Prepared], outputs: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.queues.PATIENCE", 3)
    sure = outputs["small"].probabilities[:, 0]
    few = Rule(
        "small",
        (STOP, "big"),
        ((0.0,), (-1.0,)),
        (0.0, float(np.quantile(sure, 0.04))),
        (Feature("small", "max_probability"),),
    )
    with ThreadPoolExecutor(1) as pool:
        router = Router(Policy(counting.graph, "small", (few,)), counting, 5, 1, pool)
        found = waits(router, images)
    unsure = [int(row) for row in np.flatnonzero(sure < np.quantile(sure, 0.03))]
    early = [row for row in unsure if row < IMAGES - 40]
    assert early
    assert max(found[row] for row in early) <= 5 * 5
