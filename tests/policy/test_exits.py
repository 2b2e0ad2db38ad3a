from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_tables
from tiny_tables import Row

from policy.costs import Costs
from policy.errors import InputError
from policy.exits import with_exits
from policy.graph import Stage
from policy.heads import Head
from policy.table import Table, read_table

EXITS = ("small.block1.exit", "small.block2.exit", "big.block1.exit")
SMALL_1, SMALL_2, BIG_1 = EXITS


def random_heads(names: tuple[str, ...] = EXITS, classes: int = 4) -> dict[str, Head]:
    rng = np.random.default_rng(0)
    heads = {}
    for name in names:
        width = tiny_tables.WIDTHS[name.removesuffix(".exit")]
        weight = rng.normal(size=(classes, width)).astype(np.float32)
        heads[name] = Head(weight, rng.normal(size=classes).astype(np.float32))
    return heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("table")
    tiny_tables.write(made)
    return str(made)


@pytest.fixture(scope="module")
def table(folder: str) -> Table:
    return read_table(folder, 3)


def in_ms(**changes: float) -> Costs:
    """Costs at which the big network is cheaper than the small one."""
    costs = {stage.name: 1.0 for stage in tiny_tables.GRAPH.stages} | dict.fromkeys(EXITS, 0.25)
    return Costs("ms", {name: costs[name] for name in costs} | changes)


@pytest.mark.parametrize("k", [1, 3, None])
def test_exits_answer_what_their_heads_make_of_the_features(
    table: Table, tmp_path: Path, k: int | None
) -> None:
    features, heads = tiny_tables.write(tmp_path), random_heads()
    found = with_exits(str(tmp_path), table, heads, k)
    assert found.keys == table.keys
    for name, head in heads.items():
        wanted = head.answers(features[name.removesuffix(".exit")], k)
        for field in ("classes", "probabilities", "entropy"):
            np.testing.assert_allclose(
                getattr(found.outputs[name], field), getattr(wanted, field), rtol=1e-5, atol=1e-6
            )
    np.testing.assert_array_equal(found.outputs["big"].classes, table.outputs["big"].classes)


def test_a_part_of_a_table_gets_its_own_exits(folder: str, table: Table) -> None:
    rows = np.random.default_rng(0).permutation(len(table.keys))[:11]
    whole, part = (with_exits(folder, t, random_heads(), 3) for t in (table, table.take(rows)))
    np.testing.assert_array_equal(
        part.outputs[BIG_1].classes, whole.outputs[BIG_1].take(rows).classes
    )


def test_exits_are_stages_of_the_graph_and_answers_of_their_network(
    folder: str, table: Table
) -> None:
    found = with_exits(folder, table, random_heads(), 3)
    assert found.graph.stage[SMALL_2] == Stage(
        SMALL_2, 4 * 5 / 1e9, ("small.block2",), answers=True
    )
    assert found.graph.cost((SMALL_2,)) == pytest.approx(2 + 20e-9, rel=1e-12)
    assert found.networks["small"].answers == (SMALL_1, SMALL_2, "small")
    assert found.networks["big"].answers == (BIG_1, "big")
    assert found.networks["big"].fingerprint == table.networks["big"].fingerprint
    assert tuple(found.outputs) == found.graph.answers


def test_exits_lead_on_inside_their_network_and_to_the_first_and_own_answers_of_dearer_ones(
    folder: str, table: Table
) -> None:
    graph = with_exits(folder, table, random_heads(), 3).graph
    assert {answer: set(graph.followers(answer)) for answer in graph.answers} == {
        SMALL_1: {SMALL_2, "small", BIG_1, "big"},
        SMALL_2: {"small", BIG_1, "big"},
        "small": {BIG_1, "big"},
        BIG_1: {"big"},
        "big": set(),
    }


def test_only_the_first_exit_of_another_network_is_led_to(folder: str, table: Table) -> None:
    swapped = with_exits(folder, table, random_heads(), 3, in_ms(small=9.0))
    assert swapped.graph.followers("big") == (SMALL_1, "small")
    assert set(swapped.graph.followers(BIG_1)) == {"big", SMALL_1, "small"}
    assert set(swapped.graph.followers(SMALL_1)) == {SMALL_2, "small"}


def test_edges_of_the_table_say_which_network_may_follow_which(folder: str, table: Table) -> None:
    alone = replace(table, graph=replace(table.graph, edges=()))
    graph = with_exits(folder, alone, random_heads(), 3).graph
    assert set(graph.edges or ()) == {
        (SMALL_1, SMALL_2),
        (SMALL_1, "small"),
        (SMALL_2, "small"),
        (BIG_1, "big"),
    }


def test_a_network_without_heads_is_led_to_as_before(folder: str, table: Table) -> None:
    graph = with_exits(folder, table, random_heads((SMALL_2,)), 3).graph
    assert graph.answers == ("small", SMALL_2, "big")
    assert set(graph.edges or ()) == {
        (SMALL_2, "small"),
        (SMALL_2, "big"),
        ("small", "big"),
    }


def test_without_heads_the_table_stays_as_it_is(folder: str, table: Table) -> None:
    found = with_exits(folder, table, {}, 3)
    assert found.graph == table.graph.with_edges()
    assert (found.digest, found.networks, found.keys) == (table.digest, table.networks, table.keys)


def test_an_exit_at_the_very_end_does_not_become_the_full_network(
    folder: str, table: Table
) -> None:
    head = random_heads()[BIG_1]
    costs = {stage.name: stage.cost for stage in table.graph.stages}
    same = table.graph.with_costs(costs | {"big": head.weight.size / 1e9}, "gmac")
    found = with_exits(folder, replace(table, graph=same), {BIG_1: head}, 3)
    assert found.graph.cost((BIG_1,)) == found.graph.cost(("big",))
    assert found.graph.full == "big"
    assert found.graph.followers(BIG_1) == ("big",)


def test_exits_are_priced_with_the_rest_of_the_graph(folder: str, table: Table) -> None:
    found = with_exits(folder, table, random_heads(), 3, in_ms())
    assert found.graph.unit == "ms"
    assert found.graph.cost((SMALL_2,)) == 3.25
    afterwards = with_exits(folder, table, random_heads(), 3).at_costs(in_ms())
    assert afterwards.graph.stages == found.graph.stages


def test_costs_from_before_exits_were_priced_are_refused(folder: str, table: Table) -> None:
    costs = in_ms()
    del costs.costs[SMALL_2]
    message = r"no cost given for exit 'small\.block2\.exit'.*Run `adalabel calibrate` again"
    with pytest.raises(InputError, match=message):
        with_exits(folder, table, random_heads(), 3, costs)
    with pytest.raises(InputError, match=message):
        with_exits(folder, table, random_heads(), 3).at_costs(costs)


def test_a_table_already_priced_otherwise_needs_costs(folder: str, table: Table) -> None:
    priced = table.at_costs(in_ms())
    with pytest.raises(InputError, match="priced in ms, so its exits need a price in it too: give"):
        with_exits(folder, priced, random_heads(), 3)
    assert with_exits(folder, priced, {}, 3).graph.unit == "ms"


def test_rows_that_an_exit_cannot_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    def change(rows: list[Row], stage: str, shard: str) -> list[Row]:
        del shard
        number = {"small.block1": 7, "big.block1": 50}.get(stage)
        if number is not None:
            rows[number]["features"] = np.full(len(rows[number]["features"]), np.inf, np.float16)
        return rows

    features = tiny_tables.write(tmp_path, change, {"a": 300})
    table, heads = read_table(str(tmp_path)), random_heads()
    found = with_exits(str(tmp_path), table, heads, 5)
    kept = np.setdiff1d(np.arange(300), (7, 50))
    assert found.rejected == {"nonfinite": 2}
    assert found.keys == tuple(table.keys[row] for row in kept)
    assert all(answers.finite.all() for answers in found.outputs.values())
    for name, head in heads.items():
        wanted = head.answers(features[name.removesuffix(".exit")][kept], 5)
        np.testing.assert_array_equal(found.outputs[name].classes, wanted.classes)
    both = with_exits(str(tmp_path), replace(table, rejected={"nonfinite": 3}), heads, 5)
    assert both.rejected == {"nonfinite": 5}


def test_a_head_for_a_stage_without_features_is_refused(folder: str, table: Table) -> None:
    heads = {"big.block7.exit": random_heads()[BIG_1]}
    message = (
        r"exit 'big\.block7\.exit', which the table has no features for; it has them for small"
    )
    with pytest.raises(InputError, match=message):
        with_exits(folder, table, heads, 3)


def test_a_head_of_other_classes_is_refused(folder: str, table: Table) -> None:
    heads = random_heads((BIG_1,), classes=3)
    with pytest.raises(InputError, match=r"tells 3 classes apart, the table has 4; fit it on this"):
        with_exits(folder, table, heads, 3)


def test_a_head_of_other_features_is_refused(folder: str, table: Table) -> None:
    heads = {BIG_1: random_heads()[SMALL_1]}
    with pytest.raises(InputError, match="fitted on 3 features, given 8"):
        with_exits(folder, table, heads, 3)
