"""The audit compares what `simulate` and the full network say, and changes no image's way."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from tiny_routing import EXIT, IMAGES, Counting, Run, near_a_cut, route, stripped

from policy.answers import Answers
from policy.audit import audited, disagrees
from policy.errors import InputError
from policy.features import Feature
from policy.mixture import Mixture, Routing
from policy.rows import OK
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate
from transforms import queues
from transforms.audit import AuditPlan
from transforms.careful import Careful
from transforms.networks_file import read_networks
from transforms.prepare import Prepared
from transforms.queues import Queue
from transforms.route import Router
from transforms.routed import Compared

KEYS = [f"s/{n}" for n in range(IMAGES)]
HALF = AuditPlan(0.5, "top1", seed=3)
NAMES = ("one policy", "everything", "starts elsewhere", "never full", "always full", "averaged")


@pytest.fixture(params=NAMES)
def routing(
    request: pytest.FixtureRequest, policy: Policy, counting: Counting, outputs: dict[str, Answers]
) -> Routing:
    """Policies that reach the full network on some, no or all trails, and mixtures of such."""
    graph = counting.graph
    everything = tiny.balanced(replace(tiny.EVERYTHING, graph=graph), outputs)
    onward = Policy(graph, "small", (Rule("small", ("big",), ((),), (0.0,)),), everything.mean)
    found: dict[str, Routing] = {
        "one policy": policy,
        "everything": everything,
        "starts elsewhere": Mixture(everything, always(graph, "big"), 0.5, seed=3),
        "never full": Mixture(always(graph, EXIT), always(graph, "small"), 0.5),
        "always full": always(graph, "big"),
        "averaged": Mixture(policy, onward, 0.5),
    }
    return found[str(request.param)]


def near(routing: Routing, outputs: dict[str, Answers]) -> NDArray[np.bool_]:
    by_arm = np.stack([near_a_cut(arm, outputs) for arm in routing.arms])
    full = near_a_cut(always(routing.graph, routing.graph.full), outputs)
    return by_arm[routing.arm_of(KEYS), np.arange(IMAGES)] | full


def audits_of(run: Run) -> dict[int, Compared]:
    return {group.items[n].row: found for group in run.groups for n, found in group.audits.items()}


def routed(run: Run) -> dict[int, tuple[Any, ...]]:
    """All that an image's row says, but for the audit, to the last bit."""
    rows: dict[int, tuple[Any, ...]] = {}
    for group in run.groups:
        for n, item in enumerate(group.items):
            assert item.row not in rows
            given = group.answers.take(np.array([n]))
            said = [part.tobytes() for part in (given.classes, given.probabilities, given.entropy)]
            rows[item.row] = (item.key, group.trail, group.cost, group.status, group.error, *said)
    return rows


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_labels_and_trails_are_the_same_to_the_last_bit_with_and_without_an_audit(
    routing: Routing, counting: Counting, images: list[Prepared], batch_size: int
) -> None:
    plain = routed(route(routing, counting, images, batch_size))
    assert plain.keys() == set(range(IMAGES))
    assert routed(route(routing, counting, images, batch_size, audit=HALF)) == plain


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_audits_are_what_simulate_and_the_full_network_say_row_by_row(
    routing: Routing,
    counting: Counting,
    images: list[Prepared],
    outputs: dict[str, Answers],
    batch_size: int,
    fraction: float,
) -> None:
    plan = AuditPlan(fraction, "top1")
    found = audits_of(route(routing, counting, images, batch_size, audit=plan))
    routes = simulate(routing, outputs, KEYS)
    full, chosen = outputs["big"].classes[:, 0], audited(KEYS, fraction, plan.seed)
    wrong = disagrees(routes.answers(outputs, 4), full, "top1")
    assert found.keys() == set(np.flatnonzero(chosen).tolist())
    unsure = near(routing, outputs)
    for row, seen in found.items():
        if not unsure[row]:
            extra = counting.graph.step_cost(routes.trails[routes.trail_of[row]], "big")
            assert seen == Compared(int(full[row]), bool(wrong[row]), extra)
    assert not chosen.all() or unsure.mean() < 0.2


def test_policies_that_stop_early_do_disagree_here(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    found = audits_of(route(policy, counting, images, 16, audit=AuditPlan(1.0, "top1")))
    disagreed = sum(seen.disagrees for seen in found.values())
    assert IMAGES / 20 < disagreed < IMAGES / 2


def test_an_audit_runs_only_what_its_trail_has_not_run(
    routing: Routing, counting: Counting, images: list[Prepared]
) -> None:
    graph = counting.graph
    run = route(routing, counting, images, 16, audit=HALF)
    found, wanted = audits_of(run), Counter[str]()
    for group in run.groups:
        for item in group.items:
            trail = (*group.trail, graph.full) if item.row in found else group.trail
            wanted.update(stage.name for stage in graph.needed(trail))
    assert wanted.pop("decode") == IMAGES
    assert run.images() == wanted


@pytest.fixture(scope="module")
def one_network(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    """The small network and its exit alone: the exit's trunk is the full network's too."""
    networks = read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("one"))))
    heads = {EXIT: tiny.head(np.random.default_rng(5))}
    return Counting(networks, "cpu", heads, only=("small",))


def test_a_shared_trunk_is_not_run_again(one_network: Counting, images: list[Prepared]) -> None:
    run = route(always(one_network.graph, EXIT), one_network, images, 16, audit=HALF)
    (trunk,) = one_network.graph.stage[EXIT].needs
    ran, audits = run.images(), len(audits_of(run))
    assert 0.3 * IMAGES < audits < 0.7 * IMAGES
    assert (ran[trunk], ran[EXIT], ran["small"]) == (IMAGES, IMAGES, audits)
    assert sum(size < 16 for size in run.batches["small"]) <= 1


def test_all_trails_are_compared_on_the_same_full_batches(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    plain = route(policy, counting, images, 16)
    run = route(policy, counting, images, 16, audit=HALF)
    partial = [sum(size < 16 for size in found.batches["big"]) for found in (plain, run)]
    assert partial[1] <= partial[0] + 1
    assert max(run.batches["big"]) == 16


def test_an_audited_image_does_not_wait_for_ever(
    policy: Policy, counting: Counting, images: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PATIENCE", 2)
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 16, 2, pool, AuditPlan(0.05, "top1"))
        held = []
        for item in images:
            list(router.feed(stripped(item, router)))
            held.append(len(router.auditor._held))
    assert max(held) > 0
    assert 0 in held[held.index(max(held)) :]


def test_what_waits_for_its_audit_keeps_no_decoded_image(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 200, 2, pool, HALF)
        for item in images[:200]:
            list(router.feed(replace(stripped(item, router), image=item.image)))
        held: list[Queue] = list(router.auditor._queues.at.values())
        waiting = [item for queue in held for part in queue.parts for item in part.items]
        assert len(waiting) > 10
        assert {item.image for item in waiting} == {None}
        list(router.flush())
        assert not router.auditor._held


def test_top5_gets_the_five_classes_that_it_compares(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        narrow = Router(policy, counting, 7, 2, pool, AuditPlan(0.5, "top5"))
        assert (narrow.k, narrow.topk) == (5, 2)
        assert Router(policy, counting, 7, 2, pool, HALF).k == 2
    run = route(policy, counting, images, 16, topk=1, audit=AuditPlan(1.0, "top5"))
    assert {group.answers.classes.shape[1] for group in run.groups} == {1}
    found = audits_of(run)
    assert not any(seen.disagrees for seen in found.values())  # of four classes, all are best
    assert len(found) == IMAGES


def test_an_average_of_too_few_classes_for_top5_is_an_audit_that_failed(
    counting: Counting, images: list[Prepared]
) -> None:
    mean = replace(tiny.EVERYTHING.mean, k=2)
    rule = Rule(EXIT, ("small",), ((),), (0.0,))
    policy = Policy(counting.graph, EXIT, (rule,), mean)
    found = audits_of(route(policy, counting, images, 16, audit=AuditPlan(0.5, "top5")))
    extra = counting.graph.step_cost((EXIT, "small"), "big")
    failed = [seen for seen in found.values() if seen.full is None]
    assert set(failed) == {Compared(None, disagrees=False, cost=extra)}
    assert len(failed) > len(found) / 2  # two classes are enough where they are all there is


@pytest.mark.parametrize("kind", ["not finite", "fails"])
def test_where_the_full_network_has_no_answer_the_label_stays(
    counting: Counting,
    images: list[Prepared],
    outputs: dict[str, Answers],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = Rule(EXIT, (STOP, "small"), ((1.0,), (0.0,)), (-0.5, 0.0), (Feature(EXIT, "margin"),))
    early = Policy(counting.graph, EXIT, (rule,))
    plain = routed(route(early, counting, images, 16))
    answer, spoiled = counting.answer, []
    audits = outputs["big"].classes[audited(KEYS, 0.3, 0), 0]
    counts = np.bincount(audits)
    rarest = int(np.where(counts, counts, IMAGES).argmin())

    def poor(stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        found = answer(stage, made, k)
        bad = found.classes[:, 0] == rarest
        if stage != "big" or not bad.any():
            return found
        if kind == "fails":
            raise ValueError("odd class")
        spoiled.append(int(bad.sum()))
        return replace(found, entropy=np.where(bad, np.nan, found.entropy).astype(np.float32))

    monkeypatch.setattr(counting, "answer", poor)
    run = route(early, counting, images, 16, audit=AuditPlan(0.3, "top1"))
    monkeypatch.undo()
    assert routed(run) == plain
    assert {group.status for group in run.groups} == {OK}
    found = audits_of(run)
    assert found.keys() == set(np.flatnonzero(audited(KEYS, 0.3, 0)).tolist())
    failed = [seen for seen in found.values() if seen.full is None]
    assert 0 < len(failed) < len(found)
    assert not any(seen.disagrees for seen in failed)
    if kind == "not finite":
        assert len(failed) == sum(spoiled)
    assert all((seen.cost > 0) == (kind == "not finite") for seen in failed)


def broken_at(stage: str, run: Any) -> Any:
    def broken(of: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if of == stage:
            raise ValueError("odd")
        return run(of, made)

    return broken


def test_a_full_network_that_always_fails_stops_the_audit_by_name(
    counting: Counting, images: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "run", broken_at("big", counting.run))
    monkeypatch.setattr(counting, "careful", Careful("cpu"))
    with pytest.raises(InputError, match="audit by big fails on 8 images in a row"):
        route(always(counting.graph, EXIT), counting, images, 16, audit=HALF)
