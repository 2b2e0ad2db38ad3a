"""Full batches, nothing run twice or too early, and nothing kept that is not needed."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tiny_routing import EXIT, IMAGES, Counting, Run, route, rows_of, stripped

from policy.rules import Policy, Rule
from transforms.prepare import Prepared
from transforms.route import Router


def test_no_stage_is_run_that_the_policy_did_not_ask_for(run: Run, policy: Policy) -> None:
    wanted: Counter[str] = Counter()
    for group in run.groups:
        for stage in policy.graph.needed(group.trail):
            wanted[stage.name] += len(group.items)
    assert wanted.pop("decode") == IMAGES
    assert run.images() == wanted


def test_at_most_one_batch_a_queue_is_not_full(run: Run, policy: Policy) -> None:
    queues = Counter(trail[-1] for trail in policy.trails)
    for stage in (EXIT, "small", "big"):
        sizes = run.batches[stage]
        assert max(sizes) <= run.batch_size
        assert sum(size < run.batch_size for size in sizes) <= queues[stage], stage


def test_images_come_out_as_soon_as_a_batch_is_full(run: Run, policy: Policy) -> None:
    late = sum(len(group.items) for group in run.flushed)
    assert late <= (run.batch_size - 1) * len(policy.trails)


def test_what_waits_keeps_only_what_the_rest_of_its_way_may_need(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    kept: dict[str, set[str]] = {}
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 64, 2, pool)
        for item in images[:100]:
            list(router.feed(stripped(item, router)))
        for (_, _, answer), queue in router._queues.at.items():
            kept.setdefault(answer, set()).update(*(part.made for part in queue.parts))
    assert kept == {"small": set(counting.graph.stage["small"].needs), "big": set()}


def test_images_are_let_go_once_no_input_is_left_to_make(
    counting: Counting, images: list[Prepared]
) -> None:
    policy = Policy(counting.graph, EXIT, (Rule(EXIT, ("small",), ((),), (0.0,)),))
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 64, 2, pool)
        assert not router.later
        for item in images[:20]:
            assert item.image is not None
            list(router.feed(replace(stripped(item, router), image=item.image)))
        (group,) = router.flush()
    assert {item.image for item in group.items} == {None}


def test_nothing_late_is_run_before_its_batch_is_full(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 16, 2, pool)
        counting.batches.clear()
        for item in images:
            list(router.feed(stripped(item, router)))
        assert all(set(sizes) == {16} for sizes in counting.batches.values())
        assert len(counting.batches["big"]) >= 1
        list(router.flush())


def test_the_flush_of_an_empty_router_runs_nothing(policy: Policy, counting: Counting) -> None:
    assert route(policy, counting, [], 7) == Run(7, [], [], {})


def test_a_router_goes_on_after_a_flush(
    policy: Policy, counting: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, counting, 7, 2, pool)
        rows = []
        for half in (images[:100], images[100:]):
            for item in half:
                rows += rows_of(list(router.feed(stripped(item, router))))
            rows += rows_of(list(router.flush()))
            assert len(rows) == half[-1].row + 1
    assert sorted(row for row, *_ in rows) == list(range(IMAGES))


def test_only_the_inputs_of_the_first_answer_are_prepared_for_all(
    policy: Policy, counting: Counting
) -> None:
    with ThreadPoolExecutor(1) as pool:
        (name,) = Router(policy, counting, 7, 2, pool).inputs
        assert name.startswith("input.16x16.")
