from dataclasses import replace

import numpy as np
import proposals
import pytest

from policy.answers import Answers
from policy.errors import InputError
from policy.fit_search import propose
from policy.losses import wrong
from policy.oracles import free_oracle_points, soft_oracle, soft_oracle_points
from policy.problem import Problem
from policy.simulate import simulate


def by_hand(*rows: str) -> Problem:
    """A problem with one image for each string of which answers are right: 'ab', 'c', ''."""
    labels = np.zeros(len(rows), np.int32)
    ones = np.ones((len(rows), 1), np.float32)
    outputs = {
        name: Answers(
            np.array([[0 if name in row else 1] for row in rows], np.int32), ones, ones[:, 0] * 0
        )
        for name in "abc"
    }
    return Problem(proposals.GRAPH, [str(i) for i in range(len(rows))], labels, outputs)


@pytest.mark.parametrize(
    ("right", "cost", "error"),
    [
        ("abc", 1.5, 0.0),
        ("bc", 3.5, 0.0),
        ("c", 11.5, 0.0),
        ("ac", 11.5, 0.0),  # a is right, but b, later, is not
        ("ab", 11.5, 1.0),  # the last is wrong, so it goes to the end
        ("", 11.5, 1.0),
    ],
)
def test_the_soft_oracle_stops_where_all_later_answers_are_right(
    right: str, cost: float, error: float
) -> None:
    assert soft_oracle(by_hand(right), ("a", "b", "c")) == (cost, error)


def test_the_soft_oracle_follows_the_chain_it_is_given() -> None:
    problem = by_hand("abc", "ab", "b")
    assert soft_oracle(problem, ("a", "b")) == (pytest.approx((1.5 + 1.5 + 3.5) / 3), 0.0)
    assert soft_oracle(problem, ("c",)) == (8.0, pytest.approx(2 / 3))


def test_soft_oracles_err_as_the_last_answer_and_are_given_cheapest_first() -> None:
    problem = proposals.problem()
    errors = {
        float(wrong(answers, problem.labels, "top1").mean()) for answers in problem.outputs.values()
    }
    points = soft_oracle_points(problem)
    assert {error for _, error in points} <= errors
    assert points == sorted(points)
    assert points[0][0] == 1.5


def test_the_free_oracle_pays_for_the_cheapest_right_answer_else_for_the_cheapest() -> None:
    points = free_oracle_points(by_hand("c", "bc", "abc", ""))
    assert points == [
        (1.5, 0.75),
        (pytest.approx((1.5 + 3 + 1.5 + 1.5) / 4), 0.5),
        (pytest.approx((8 + 3 + 1.5 + 1.5) / 4), 0.25),
    ]


def test_no_policy_beats_the_free_oracle() -> None:
    problem = proposals.problem()
    costs, errors = zip(*free_oracle_points(problem), strict=True)
    for policy in propose(problem):
        routes = simulate(policy, problem.outputs)
        error = wrong(routes.answers(problem.outputs, 1), problem.labels, "top1").mean()
        assert error >= np.interp(routes.cost.mean(), costs, errors) - 1e-12


def test_an_oracle_on_edges_that_are_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no edge from 'a' to 'c'; a chain needs one"):
        soft_oracle(by_hand("abc"), ("a", "c"))
    with pytest.raises(InputError, match="wanted at least one of the answers"):
        soft_oracle(by_hand("abc"), ("a", "z"))
    with pytest.raises(InputError, match=r"a chain of \(\); wanted at least one"):
        soft_oracle(by_hand("abc"), ())


def test_oracles_count_errors_by_the_metric() -> None:
    problem = replace(proposals.problem(), metric="top5")
    assert free_oracle_points(problem) == [(1.5, 0.0)]
    assert soft_oracle_points(problem) == [(1.5, 0.0)]
