from dataclasses import replace

import numpy as np
import pytest
import tiny

from policy.errors import InputError
from policy.losses import Objective, regret
from policy.problem import Problem

BIG = "big"


def test_a_problem_has_as_many_images_as_labels() -> None:
    assert len(tiny.problem(0, 7)) == 7


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_what_each_answer_loses_is_its_regret(objective: Objective) -> None:
    problem = replace(tiny.problem(0, 50), objective=objective)
    full = problem.outputs[BIG]
    for name, answers in problem.outputs.items():
        wanted = regret(answers, full, problem.labels, "top1", objective)
        np.testing.assert_array_equal(problem.lost[name], wanted)
    assert not problem.lost[BIG].any()


def same(one: Problem, two: Problem) -> bool:
    return (
        list(one.keys) == list(two.keys)
        and one.labels.tolist() == two.labels.tolist()
        and all(
            one.outputs[name].probabilities.tolist() == two.outputs[name].probabilities.tolist()
            for name in one.outputs
        )
    )


def test_taking_rows_keeps_everything_of_an_image_together() -> None:
    problem = replace(tiny.problem(0, 30), metric="top5", objective="loss", seed=4)
    rows = np.array([9, 2, 17])
    found = problem.take(rows)
    assert list(found.keys) == ["s/9", "s/2", "s/17"]
    assert found.labels.tolist() == [1, 2, 1]
    assert (found.metric, found.objective, found.seed) == ("top5", "loss", 4)
    for name, answers in problem.outputs.items():
        assert found.outputs[name].classes.tolist() == answers.classes[rows].tolist()
        np.testing.assert_array_equal(found.lost[name], problem.lost[name][rows])


@pytest.mark.parametrize("seed", [0, 3])
def test_parts_share_no_image_and_lose_none(seed: int) -> None:
    problem = replace(tiny.problem(0, 400), seed=seed)
    parts = problem.split({"fit": 0.5, "choose": 0.3, "test": 0.2})
    assert list(parts) == ["fit", "choose", "test"]
    keys = [key for part in parts.values() for key in part.keys]
    assert sorted(keys) == sorted(problem.keys)
    for name, share in {"fit": 0.5, "choose": 0.3, "test": 0.2}.items():
        assert len(parts[name]) == pytest.approx(share * 400, abs=45)


def test_a_part_does_not_depend_on_which_other_images_there_are() -> None:
    problem = tiny.problem(0, 300)
    few = problem.take(np.arange(100))
    whole, some = (p.split({"fit": 0.5, "choose": 0.5})["fit"] for p in (problem, few))
    assert set(some.keys) == set(whole.keys) & set(few.keys)


def test_at_most_so_many_are_picked_by_key_in_their_order() -> None:
    problem = tiny.problem(0, 200)
    some = problem.at_most(50)
    assert len(some) == 50
    assert list(some.keys) == [key for key in problem.keys if key in set(some.keys)]
    turned = problem.take(np.arange(200)[::-1]).at_most(50)
    assert set(turned.keys) == set(some.keys)
    assert set(problem.at_most(30).keys) < set(some.keys)
    assert set(replace(problem, seed=1).at_most(50).keys) != set(some.keys)


@pytest.mark.parametrize("n", [200, 201])
def test_no_more_than_that_are_left_as_they_are(n: int) -> None:
    problem = tiny.problem(0, 200)
    assert problem.at_most(n) is problem


def test_who_is_picked_does_not_follow_from_the_part() -> None:
    problem = tiny.problem(0, 400)
    fit = problem.split({"fit": 0.5, "choose": 0.5})["fit"]
    picked = problem.at_most(200)
    assert len(set(fit.keys) & set(picked.keys)) == pytest.approx(100, abs=30)


def test_a_problem_without_an_answer_of_the_graph_is_refused() -> None:
    problem = tiny.problem(0, 5)
    outputs = {name: answers for name, answers in problem.outputs.items() if name != BIG}
    with pytest.raises(InputError, match=r"no answers given for \['big'\], which the graph has"):
        replace(problem, outputs=outputs)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"keys": ["a"]}, "'keys': 1"),
        ({"labels": tiny.labels(6)}, "'labels': 6"),
        ({"outputs": tiny.outputs(np.random.default_rng(0), 4)}, "'big': 4"),
    ],
)
def test_answers_for_other_images_are_refused(change: dict[str, object], found: str) -> None:
    with pytest.raises(InputError, match=f"wanted everything for the same images; found .*{found}"):
        replace(tiny.problem(0, 5), **change)
