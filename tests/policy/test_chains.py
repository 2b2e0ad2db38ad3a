from itertools import pairwise

import proposals
import pytest

from policy import chains as module
from policy.chains import chains, longest_chain
from policy.graph import Stage, StageGraph


def row(count: int, edges: tuple[tuple[str, str], ...] | None = None) -> StageGraph:
    names = [f"n{number}" for number in range(count)]
    stages = tuple(Stage(name, 1.0 + number, answers=True) for number, name in enumerate(names))
    return StageGraph(stages, "ms", edges)


def test_the_longest_chain_comes_first_and_has_every_answer_by_cost() -> None:
    assert chains(proposals.GRAPH) == [("a", "b", "c"), ("b", "c"), ("a", "b")]
    assert chains(row(4))[0] == ("n0", "n1", "n2", "n3")


def test_every_subset_of_a_few_answers_is_a_chain() -> None:
    found = chains(row(5))
    assert len(found) == len(set(found)) == 2**5 - 5 - 1


def test_neighbours_in_a_chain_are_edges_of_the_graph() -> None:
    graph = row(5, (("n0", "n1"), ("n1", "n3"), ("n0", "n4"), ("n3", "n4")))
    found = chains(graph)
    assert found[0] == ("n0", "n1", "n3", "n4")
    assert ("n0", "n3") not in found
    assert all(b in graph.followers(a) for chain in found for a, b in pairwise(chain))


def test_after_the_longest_chains_get_longer_and_those_to_the_full_network_come_first() -> None:
    rest = chains(row(4))[1:]
    assert [len(chain) for chain in rest] == [2] * 6 + [3] * 4
    assert [chain[-1] == "n3" for chain in rest[:6]] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("count", [8, 40])
def test_many_answers_have_no_more_chains_than_the_limit(count: int) -> None:
    found = chains(row(count))
    assert len(found[0]) == count
    assert len(found) == module.MOST


def test_answers_without_edges_are_chains_of_one() -> None:
    assert chains(row(3, ())) == [("n2",)]
    assert chains(row(1)) == [("n0",)]


def test_of_equally_long_chains_one_that_ends_in_the_full_network_is_the_longest() -> None:
    graph = row(4, (("n0", "n1"), ("n0", "n3"), ("n2", "n3")))
    assert longest_chain(graph) == ("n0", "n3")


def test_answers_of_equal_cost_do_not_follow_each_other() -> None:
    graph = StageGraph(tuple(Stage(name, 2.0, answers=True) for name in "ab"), "ms")
    assert chains(graph) == [("a",)]
