"""The promise of the product: the router does to every image what `simulate` says."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import tiny
import tiny_networks
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from policy.answers import Answers, concatenate
from policy.features import Feature
from policy.rules import STOP, Policy, Rule, always
from policy.simulate import simulate
from transforms.extract import run_all
from transforms.networks_file import read_networks
from transforms.prepare import Prepared, prepare
from transforms.route import Routed, Router
from transforms.shards import Record
from transforms.stages import Engine

EXIT = "small.block1.exit"
IMAGES = 240
NEAR = 1e-3
"""Images this close to a cut may fall either way: a batch of another size rounds otherwise."""


class Counting(Engine):
    """An engine that keeps the size of every batch it was given, by stage."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.batches: dict[str, list[int]] = {}

    def _count(self, stage: str, n: int) -> None:
        self.batches.setdefault(stage, []).append(n)

    def input_batch(self, stage: str, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        self._count(stage, len(pixels))
        return super().input_batch(stage, pixels)

    def run(self, stage: str, made: Mapping[str, torch.Tensor]) -> torch.Tensor:
        result = super().run(stage, made)
        self._count(stage, len(result))
        return result

    def answer(self, stage: str, made: Mapping[str, torch.Tensor], k: int | None) -> Answers:
        answers = super().answer(stage, made, k)
        if stage in self.heads:  # other answers go through `run`
            self._count(stage, len(answers))
        return answers


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    networks = read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))
    return Counting(networks, "cpu", heads={EXIT: tiny.head(np.random.default_rng(5))})


@pytest.fixture(scope="module")
def images(engine: Counting) -> list[Prepared]:
    """Random images of different sizes, brightness and contrast, with all inputs made."""
    rng = np.random.default_rng(0)
    return [prepare("s", n, Record(f"s/{n}", encoded(rng)), engine.inputs) for n in range(IMAGES)]


def encoded(rng: np.random.Generator) -> bytes:
    """A coarse random picture as PNG, so that pooled features differ between images."""
    height, width = rng.integers(8, 40, size=2)
    coarse = rng.integers(0, 256, (2, 3, 3)) * rng.uniform(0.1, 1)
    pixels = np.kron(coarse, np.ones((1 + height // 2, 1 + width // 3, 1)))
    return to_png(pixels[:height, :width].astype(np.uint8))


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def outputs(engine: Counting, images: list[Prepared]) -> dict[str, Answers]:
    """Every answer for every image: what a table holds."""
    pixels = {name: [item.pixels[name] for item in images] for name in engine.inputs}
    return run_all(engine, pixels, None)[0]


@pytest.fixture(scope="module")
def policy(engine: Counting, outputs: dict[str, Answers]) -> Policy:
    """tiny.POLICY on the engine's own graph, with cuts where every action is taken."""
    sure = outputs[EXIT].probabilities[:, 0]
    low, high = (float(q) for q in np.quantile(sure, (0.3, 0.7)))
    unsure = float(np.quantile(outputs["small"].entropy, 0.5))
    return Policy(
        engine.graph,
        start=EXIT,
        rules=(
            Rule(
                EXIT,
                (STOP, "small", "big"),
                weights=((1.0,), (0.0,), (-1.0,)),
                bias=(-high, 0.0, low),
                features=(Feature(EXIT, "max_probability"),),
            ),
            Rule(
                "small",
                (STOP, "big"),
                weights=((0.0,), (1.0,)),
                bias=(unsure, 0.0),
                features=(Feature("small", "entropy"),),
            ),
        ),
    )


def stripped(item: Prepared, inputs: Mapping[str, object]) -> Prepared:
    """An image as a worker prepares it: only with the inputs that the router asks for."""
    pixels = {name: item.pixels[name] for name in inputs}
    return Prepared(item.shard, item.row, item.key, item.label, image=item.image, pixels=pixels)


@dataclass(frozen=True)
class Run:
    """What came out while feeding and out of the flush, and the batches by stage."""

    batch_size: int
    fed: list[Routed]
    flushed: list[Routed]
    batches: dict[str, list[int]]

    @property
    def groups(self) -> list[Routed]:
        return self.fed + self.flushed

    def images(self) -> Counter[str]:
        return Counter({stage: sum(sizes) for stage, sizes in self.batches.items()})


def route(
    policy: Policy, engine: Counting, items: Sequence[Prepared], batch_size: int, topk: int = 2
) -> Run:
    engine.batches = {}
    with ThreadPoolExecutor(2) as pool:
        router = Router(policy, engine, batch_size, topk, pool)
        fed = [group for item in items for group in router.feed(stripped(item, router.inputs))]
        return Run(batch_size, fed, list(router.flush()), engine.batches)


@pytest.fixture(scope="module", params=[1, 7, 64, IMAGES, 1000])
def run(
    request: pytest.FixtureRequest, policy: Policy, engine: Counting, images: list[Prepared]
) -> Run:
    return route(policy, engine, images, request.param)


def rows_of(groups: list[Routed]) -> Iterator[tuple[int, tuple[str, ...], float, int]]:
    """(row, trail, cost, label) of every image in the order in which they came out."""
    for group in groups:
        for item, best in zip(group.items, group.answers.classes[:, 0], strict=True):
            yield item.row, group.trail, group.cost, int(best)


def near_a_cut(policy: Policy, outputs: dict[str, Answers]) -> NDArray[np.bool_]:
    """[n], where some rule could fall either way, or two best classes are as good as equal."""
    near = np.zeros(len(outputs[policy.start]), dtype=bool)
    for trail in policy.trails:
        got = {answer: outputs[answer] for answer in trail}
        margin = outputs[trail[-1]].probabilities
        near |= margin[:, 0] - margin[:, 1] < NEAR
        if trail[-1] in policy.rule:
            near |= policy.rule[trail[-1]].distance_to_cut(got) < NEAR
    return near


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
    policy: Policy, engine: Counting, images: list[Prepared]
) -> None:
    kept: dict[str, set[str]] = {}
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, engine, 64, 2, pool)
        for item in images[:100]:
            list(router.feed(stripped(item, router.inputs)))
        for (_, answer), queue in router._queues.items():
            kept.setdefault(answer, set()).update(*(part.made for part in queue.parts))
    assert kept == {"small": set(engine.graph.stage["small"].needs), "big": set()}


def test_images_are_let_go_once_no_input_is_left_to_make(
    engine: Counting, images: list[Prepared]
) -> None:
    policy = Policy(engine.graph, EXIT, (Rule(EXIT, ("small",), ((),), (0.0,)),))
    (group,) = route(policy, engine, images[:20], 64).groups
    assert {item.image for item in group.items} == {None}


def test_nothing_late_is_run_before_its_batch_is_full(
    policy: Policy, engine: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, engine, 16, 2, pool)
        engine.batches.clear()
        for item in images:
            list(router.feed(stripped(item, router.inputs)))
        assert all(set(sizes) == {16} for sizes in engine.batches.values())
        assert len(engine.batches["big"]) >= 1
        list(router.flush())


def test_the_flush_of_an_empty_router_runs_nothing(policy: Policy, engine: Counting) -> None:
    assert route(policy, engine, [], 7) == Run(7, [], [], {})


def test_a_router_goes_on_after_a_flush(
    policy: Policy, engine: Counting, images: list[Prepared]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, engine, 7, 2, pool)
        rows = []
        for half in (images[:100], images[100:]):
            for item in half:
                rows += rows_of(list(router.feed(stripped(item, router.inputs))))
            rows += rows_of(list(router.flush()))
            assert len(rows) == half[-1].row + 1
    assert sorted(row for row, *_ in rows) == list(range(IMAGES))


@pytest.mark.parametrize("answer", [EXIT, "small", "big"])
def test_a_policy_of_one_answer_runs_its_stages_alone(
    engine: Counting, images: list[Prepared], outputs: dict[str, Answers], answer: str
) -> None:
    run = route(always(engine.graph, answer), engine, images[:50], 16, topk=4)
    needed = {stage.name for stage in engine.graph.needed((answer,))} - {"decode"}
    assert set(run.batches) == needed
    assert {group.trail for group in run.groups} == {(answer,)}
    order = [item.row for group in run.groups for item in group.items]
    labels = concatenate(group.answers for group in run.groups).classes[:, 0]
    margin = outputs[answer].probabilities[:, 0] - outputs[answer].probabilities[:, 1]
    clear = margin[order] > NEAR
    assert np.array_equal(labels[clear], outputs[answer].classes[order, 0][clear])


def test_only_the_inputs_of_the_first_answer_are_prepared_for_all(
    policy: Policy, engine: Counting
) -> None:
    with ThreadPoolExecutor(1) as pool:
        (name,) = Router(policy, engine, 7, 2, pool).inputs
        assert name.startswith("input.16x16.")


@pytest.mark.parametrize(
    ("kind", "index", "topk", "k"),
    [
        ("max_probability", 0, 1, 2),
        ("probability", 2, 1, 3),
        ("probability", 0, 3, 3),
        ("class_probability", 1, 1, None),
    ],
)
def test_as_many_classes_are_got_as_the_rules_and_the_labels_need(
    engine: Counting, images: list[Prepared], kind: str, index: int, topk: int, k: int | None
) -> None:
    rule = Rule(EXIT, (STOP, "big"), ((0.0,), (1.0,)), (0.3, 0.0), (Feature(EXIT, kind, index),))
    policy = Policy(engine.graph, EXIT, (rule,))
    with ThreadPoolExecutor(1) as pool:
        assert Router(policy, engine, 7, topk, pool).k == k
    groups = route(policy, engine, images[:40], 7, topk=topk).groups
    assert {group.answers.classes.shape[1] for group in groups} == {topk}
    assert sum(len(group.items) for group in groups) == 40


NAN = """
classes = "classes.txt"
import_path = ["{folder}"]
"""
BLIND = """
[[network]]
name    = "blind"
model   = "tiny_networks:not_finite"
weights = "blind.safetensors"
input   = {{ resize = [12, 12], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""
BIG = "[[network]]" + tiny.TOML.split("[[network]]")[2]


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    """An engine with a network that gives NaN for bright images, and another."""
    folder = tmp_path_factory.mktemp("blind")
    path = tiny.write_networks(folder, NAN + BLIND + BIG)
    torch.manual_seed(0)
    save_file(tiny_networks.not_finite().state_dict(), folder / "blind.safetensors")
    return Counting(read_networks(str(path)), "cpu")


def brightnesses(engine: Engine, levels: Sequence[int]) -> list[Prepared]:
    flat = (to_png(np.full((12, 12, 3), level, dtype=np.uint8)) for level in levels)
    return [prepare("s", n, Record(str(n), png), engine.inputs) for n, png in enumerate(flat)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_answer_that_is_not_finite_ends_the_trail_undecided(
    blind: Counting, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Answers] = []
    decide = Policy.split

    def watch(policy: Policy, trail: Mapping[str, Answers]) -> object:
        compared.extend(trail.values())
        return decide(policy, trail)

    monkeypatch.setattr(Policy, "split", watch)
    items = brightnesses(blind, [20, 200, 30, 255, 40, 250, 10])
    rule = Rule("blind", (STOP, "big"), ((0.0,), (0.0,)), (0.0, 1.0), (Feature("blind", "margin"),))
    run = route(Policy(blind.graph, "blind", (rule,)), blind, items, batch_size)
    groups = run.groups
    bad = [row for row, *_ in rows_of([group for group in groups if not group.finite])]
    assert sorted(bad) == [1, 3, 5]
    assert all(answers.finite.all() for answers in compared)
    assert run.images()["big"] == 4
    for group in groups:
        assert group.trail == (("blind", "big") if group.finite else ("blind",))
        assert group.cost == blind.graph.cost(group.trail)
        assert group.answers.finite.all() == group.finite
    assert sorted(row for row, *_ in rows_of(groups)) == list(range(7))


def test_a_late_answer_that_is_not_finite_is_found_too(blind: Counting) -> None:
    items = brightnesses(blind, [20, 200, 30])
    graph = blind.graph.with_costs(
        {stage.name: 9.0 if stage.name == "blind" else 0.0 for stage in blind.graph.stages}, "ms"
    )
    rule = Rule("big", ("blind",), ((),), (0.0,))
    groups = route(Policy(graph, "big", (rule,)), blind, items, 2).groups
    trails = {group.finite: group.trail for group in groups}
    assert trails == {True: ("big", "blind"), False: ("big", "blind")}
    assert [row for row, *_ in rows_of([g for g in groups if not g.finite])] == [1]


def test_a_batch_with_nothing_finite_is_not_decided(blind: Counting) -> None:
    groups = route(always(blind.graph, "blind"), blind, brightnesses(blind, [255, 250]), 2).groups
    assert [group.finite for group in groups] == [False]
    assert len(groups[0].items) == 2
