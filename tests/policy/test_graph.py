import numpy as np
import pytest
import tiny

from policy.errors import InputError
from policy.graph import IMAGE, Stage, StageGraph
from policy.schema import from_json, to_json

ANSWER = Stage("a", 1.0, answers=True)


def answers_only(*costs: float, edges: tuple[tuple[str, str], ...] | None = None) -> StageGraph:
    """Answers a, b, c, ... that share only the image."""
    names = "abcdefgh"[: len(costs)]
    stages = (Stage(n, cost, answers=True) for n, cost in zip(names, costs, strict=True))
    return StageGraph(tuple(stages), "ms", edges)


def random_graph(rng: np.random.Generator, n: int) -> StageGraph:
    """A graph of n stages, each needing one or two earlier tensors; about half of them answer."""
    stages: list[Stage] = []
    for number in range(n):
        made = [IMAGE, *(stage.name for stage in stages)]
        needs = rng.choice(made, size=min(len(made), 1 + int(rng.integers(2))), replace=False)
        answers = bool(rng.integers(2)) or number == n - 1
        stages.append(Stage(f"s{number}", float(rng.random()), tuple(needs.tolist()), answers))
    return StageGraph(tuple(stages), "ms")


def upstream(graph: StageGraph, name: str) -> set[str]:
    """By recursion: the stages that must run for this one."""
    if name == IMAGE:
        return set()
    return {name}.union(*(upstream(graph, need) for need in graph.stage[name].needs))


def test_a_shared_stage_is_paid_once() -> None:
    assert tiny.GRAPH.cost(("small.block1.exit",)) == 2.75
    assert tiny.GRAPH.cost(("small",)) == 4.5
    assert tiny.GRAPH.cost(("small.block1.exit", "small")) == 4.75
    assert tiny.GRAPH.cost(("small", "big")) == 4.5 + 9.5 - 1.0


def test_the_same_answer_twice_costs_once_and_none_costs_nothing() -> None:
    assert tiny.GRAPH.cost(("small", "small")) == tiny.GRAPH.cost(("small",))
    assert tiny.GRAPH.cost(()) == 0


def test_needed_stages_come_once_in_graph_order() -> None:
    names = [stage.name for stage in tiny.GRAPH.needed(("big", "small.block1.exit"))]
    assert names == [
        "decode",
        "small.input",
        "small.block1",
        "small.block1.exit",
        "big.input",
        "big",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_cost_agrees_with_a_recursion_over_needs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 9)
    answers = rng.permutation(graph.answers)[: 1 + seed % 3].tolist()
    names = set().union(*(upstream(graph, answer) for answer in answers))
    assert {stage.name for stage in graph.needed(answers)} == names
    assert graph.cost(answers) == pytest.approx(sum(graph.stage[name].cost for name in names))


@pytest.mark.parametrize("seed", range(20))
def test_step_costs_add_up_to_the_cost_of_the_trail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 9)
    trail = rng.permutation(graph.answers).tolist()
    steps = [graph.step_cost(trail[:i], answer) for i, answer in enumerate(trail)]
    assert sum(steps) == pytest.approx(graph.cost(trail))
    assert graph.step_cost(trail, trail[0]) == 0


def test_the_full_network_is_the_dearest_answer_with_all_it_needs() -> None:
    stages = (
        Stage("trunk", 10.0),
        Stage("a", 1.0, ("trunk",), answers=True),
        Stage("b", 5.0, answers=True),
    )
    assert StageGraph(stages, "ms").full == "a"


def test_any_dearer_answer_may_follow_cheapest_first() -> None:
    graph = answers_only(3.0, 1.0, 2.0)
    assert graph.followers("b") == ("c", "a")
    assert graph.followers("a") == ()


def test_answers_of_equal_cost_do_not_follow_each_other() -> None:
    graph = answers_only(1.0, 1.0, 2.0)
    assert graph.followers("a") == graph.followers("b") == ("c",)


def test_edges_say_what_may_follow_even_if_it_is_cheaper() -> None:
    graph = answers_only(3.0, 1.0, 2.0, edges=(("a", "c"), ("a", "b")))
    assert graph.followers("a") == ("b", "c")
    assert graph.followers("b") == ()


def test_an_edge_given_twice_counts_once() -> None:
    assert answers_only(1.0, 2.0, edges=(("a", "b"), ("a", "b"))).followers("a") == ("b",)


@pytest.mark.parametrize("seed", range(10))
def test_reachable_answers_come_before_those_that_follow_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 8)
    for start in graph.answers:
        found = graph.reachable(start)
        assert found[0] == start
        assert len(set(found)) == len(found)
        for place, answer in enumerate(found):
            assert set(graph.followers(answer)) <= set(found[place + 1 :])


def test_nothing_is_reachable_that_no_edge_leads_to() -> None:
    graph = answers_only(1.0, 2.0, 3.0, 4.0, edges=(("a", "c"), ("b", "d"), ("c", "d")))
    assert graph.reachable("a") == ("a", "c", "d")
    assert graph.reachable("d") == ("d",)


def test_other_costs_change_the_order_of_answers() -> None:
    costs = {stage.name: 1.0 for stage in tiny.GRAPH.stages} | {"small": 100.0, "unused": 7.0}
    priced = tiny.GRAPH.with_costs(costs, "usd")
    assert priced.unit == "usd"
    assert priced.full == "small"
    assert priced.cost(("small",)) == 103.0
    assert tiny.GRAPH.full == "big"


def test_every_stage_must_be_priced() -> None:
    costs = {stage.name: 1.0 for stage in tiny.GRAPH.stages if stage.name not in ("big", "small")}
    with pytest.raises(InputError, match=r"no cost given for stage 'small', 'big'; .*0 is allowed"):
        tiny.GRAPH.with_costs(costs, "ms")


def test_edges_spelt_out_stay_as_they_are_at_other_costs() -> None:
    graph = answers_only(1.0, 2.0, 3.0)
    spelt = graph.with_edges()
    assert [spelt.followers(a) for a in "abc"] == [graph.followers(a) for a in "abc"]
    turned = spelt.with_costs({"a": 3.0, "b": 2.0, "c": 1.0}, "ms")
    assert [turned.followers(a) for a in "abc"] == [("c", "b"), ("c",), ()]


def test_a_graph_reads_back_from_its_json() -> None:
    assert from_json(StageGraph, to_json(tiny.GRAPH), "x") == tiny.GRAPH


WRONG_STAGES = {
    "stage name '' is empty": (Stage("", 1.0, answers=True),),
    "stage name 'image' is empty, reserved or used twice": (Stage(IMAGE, 1.0, answers=True),),
    "stage name 'stop' is empty, reserved": (Stage("stop", 1.0, answers=True),),
    "stage name 'a' is empty, reserved or used twice": (ANSWER, ANSWER),
    r"stage 'b' needs \['c'\], which no earlier stage makes; list stages in an order": (
        Stage("b", 1.0, (IMAGE, "c")),
        Stage("c", 1.0, ("b",), answers=True),
    ),
    r"stage 'a' needs \['a'\]": (Stage("a", 1.0, ("a",), answers=True),),
    "stage 'a' needs nothing": (Stage("a", 1.0, (), answers=True),),
    "stage 'a' costs -0.5; wanted a finite number >= 0": (Stage("a", -0.5, answers=True),),
    "needs at least one stage that answers": (Stage("a", 1.0),),
    "at least one stage that answers; found none": (),
}
WRONG_EDGES = {
    r"edge \('a', 'x'\) names \['x'\], which is not an answer": (("a", "x"),),
    "edges go in a circle: (a -> b -> a|b -> a -> b)": (("a", "b"), ("b", "a")),
    "edges go in a circle: a -> a": (("a", "a"),),
}


@pytest.mark.parametrize("message", WRONG_STAGES)
def test_stages_that_cannot_run_or_be_paid_are_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        StageGraph(WRONG_STAGES[message], "ms")


@pytest.mark.parametrize("message", WRONG_EDGES)
def test_edges_that_lead_nowhere_or_back_are_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        answers_only(1.0, 2.0, edges=WRONG_EDGES[message])


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -float("inf")])
def test_a_cost_that_is_not_finite_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        answers_only(cost)
