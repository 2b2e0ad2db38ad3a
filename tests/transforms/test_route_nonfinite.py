"""An answer with NaN or infinity is noticed, and decides nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import tiny
import tiny_networks
import torch
from safetensors.torch import save_file
from tiny_routing import Counting, route, rows_of, to_png

from policy.answers import Answers
from policy.features import Feature
from policy.rows import NONFINITE, OK
from policy.rules import STOP, Policy, Rule, always
from transforms.networks_file import read_networks
from transforms.prepare import Prepared, prepare
from transforms.shards import Record
from transforms.stages import Engine

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
    records = [Record(str(n), png) for n, png in enumerate(flat)]
    specs = engine.inputs
    return [prepare("s", n, record, specs, later=specs) for n, record in enumerate(records)]


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
    bad = [row for row, *_ in rows_of([group for group in groups if group.status != OK])]
    assert sorted(bad) == [1, 3, 5]
    assert all(answers.finite.all() for answers in compared)
    assert run.images()["big"] == 4
    for group in groups:
        assert group.trail == (("blind", "big") if group.status == OK else ("blind",))
        assert group.cost == blind.graph.cost(group.trail)
        assert group.answers.finite.all() == (group.status == OK)
    assert sorted(row for row, *_ in rows_of(groups)) == list(range(7))


def test_a_late_answer_that_is_not_finite_is_found_too(blind: Counting) -> None:
    items = brightnesses(blind, [20, 200, 30])
    graph = blind.graph.with_costs(
        {stage.name: 9.0 if stage.name == "blind" else 0.0 for stage in blind.graph.stages}, "ms"
    )
    rule = Rule("big", ("blind",), ((),), (0.0,))
    groups = route(Policy(graph, "big", (rule,)), blind, items, 2).groups
    trails = {group.status == OK: group.trail for group in groups}
    assert trails == {True: ("big", "blind"), False: ("big", "blind")}
    assert [row for row, *_ in rows_of([g for g in groups if g.status != OK])] == [1]


def test_a_batch_with_nothing_finite_is_not_decided(blind: Counting) -> None:
    groups = route(always(blind.graph, "blind"), blind, brightnesses(blind, [255, 250]), 2).groups
    assert [group.status for group in groups] == [NONFINITE]
    assert len(groups[0].items) == 2
