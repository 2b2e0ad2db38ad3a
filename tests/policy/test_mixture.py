from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import tiny

from policy.answers import Answers
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import InputError
from policy.graph import StageGraph
from policy.mixture import Mixture, Routing, answers_used, with_graph
from policy.rules import always
from policy.schema import from_json, to_json
from policy.simulate import simulate
from policy.split import split

EXIT, SMALL, BIG = tiny.GRAPH.answers
MIXTURE = Mixture(tiny.POLICY, tiny.EVERYTHING, share=0.3, seed=5)


def keys(n: int) -> list[str]:
    return [f"shard/{number:06d}" for number in range(n)]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("seed", [-1, 0, 7])
def test_the_share_of_keys_that_follow_the_dear_arm_is_the_one_asked_for(
    share: float, seed: int
) -> None:
    n = 20_000
    found = replace(MIXTURE, share=share, seed=seed).arm_of(keys(n)).mean()
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(("share", "arm"), [(0.0, 0), (1.0, 1), (0, 0), (1, 1)])
def test_a_share_of_none_or_all_is_exact(share: float, arm: int) -> None:
    assert set(replace(MIXTURE, share=share).arm_of(keys(1000))) == {arm}


def test_an_image_decides_the_same_on_every_retry_and_in_any_company() -> None:
    asked = keys(500)
    whole = MIXTURE.arm_of(asked)
    again = from_json(Mixture, to_json(MIXTURE), "x").arm_of(asked[::-1])[::-1]
    np.testing.assert_array_equal(whole, again)
    assert [int(MIXTURE.arm_of([key])[0]) for key in asked] == whole.tolist()


def test_a_larger_share_takes_no_image_from_the_dear_arm() -> None:
    asked, before = keys(2000), np.zeros(2000)
    for share in np.linspace(0, 1, 11).tolist():
        after = replace(MIXTURE, share=share).arm_of(asked)
        assert (after >= before).all()
        before = after


def test_another_seed_decides_otherwise() -> None:
    one, two = (replace(MIXTURE, share=0.5, seed=seed).arm_of(keys(4000)) for seed in (0, 1))
    assert np.mean(one == two) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_arm_does_not_follow_from_the_part_of_the_table(seed: int) -> None:
    """Else a policy that was chosen on one part would do otherwise in service."""
    asked = keys(8000)
    mixture = replace(MIXTURE, share=0.3, seed=seed)
    for rows in split(asked, {"fit": 0.5, "choose": 0.25, "test": 0.25}, seed).values():
        found = mixture.arm_of([asked[row] for row in rows]).mean()
        assert found == pytest.approx(0.3, abs=0.05)


def test_a_mixture_is_simulated_as_its_arms_on_their_own_images() -> None:
    problem = tiny.problem(0, 400)
    policy = Mixture(tiny.balanced(tiny.EVERYTHING, problem.outputs), tiny.POLICY, share=0.4)
    routes = simulate(policy, problem.outputs, problem.keys)
    given = routes.answers(problem.outputs, 3)
    arm_of = policy.arm_of(problem.keys)
    for number, arm in enumerate(policy.arms):
        alone = simulate(arm, problem.outputs)
        label = alone.answers(problem.outputs, 3)
        for row in np.flatnonzero(arm_of == number):
            assert routes.arms[routes.trail_of[row]] == arm
            assert routes.trails[routes.trail_of[row]] == alone.trails[alone.trail_of[row]]
            assert routes.cost[row] == alone.cost[row]
            assert given.classes[row].tolist() == label.classes[row].tolist()
            assert given.probabilities[row].tolist() == label.probabilities[row].tolist()


def test_the_cost_of_a_mixture_lies_between_those_of_its_arms() -> None:
    problem = tiny.problem(0, 4000)
    mixture = Mixture(always(problem.graph, SMALL), always(problem.graph, BIG), 0.25)
    cost = simulate(mixture, problem.outputs, problem.keys).cost.mean()
    assert cost == pytest.approx(0.75 * 4.5 + 0.25 * 9.5, rel=0.02)


@pytest.mark.parametrize("given", [None, ["only/one"]])
def test_a_mixture_without_keys_is_refused(given: Sequence[str] | None) -> None:
    found = "none" if given is None else "1"
    message = f"a mixture of policies needs the key of each of 5 images; found {found}"
    with pytest.raises(InputError, match=message):
        simulate(MIXTURE, tiny.outputs(np.random.default_rng(0), 5), given)


def test_no_images_take_neither_arm() -> None:
    outputs: Mapping[str, Answers] = {
        name: answers.take(np.arange(0))
        for name, answers in tiny.outputs(np.random.default_rng(0), 3).items()
    }
    routes = simulate(MIXTURE, outputs, [])
    assert (len(routes.trail_of), len(routes.cost)) == (0, 0)
    assert routes.answers(outputs, 2).classes.shape == (0, 2)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_arm_that_no_image_follows_has_no_say_in_the_labels(share: float) -> None:
    """Two classes in the means of one arm, all in the answers of the other."""
    problem = tiny.problem(0, 30)
    meant = replace(tiny.EVERYTHING.mean, k=2)
    narrow = replace(always(tiny.GRAPH, EXIT), mean=meant)
    arms = (narrow, always(tiny.GRAPH, BIG))
    arms = arms if share else arms[::-1]
    routes = simulate(Mixture(*arms, share=share), problem.outputs, problem.keys)
    assert routes.trails == ((BIG,),)
    assert routes.answers(problem.outputs, 4).classes.shape == (30, 4)


@pytest.mark.parametrize("share", [-0.01, 1.5])
def test_a_share_that_is_no_fraction_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=f"a share of {share}; wanted a fraction, 0 to 1"):
        replace(MIXTURE, share=share)


def test_a_share_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        replace(MIXTURE, share=float("nan"))


@pytest.mark.parametrize(
    "other",
    [
        tiny.GRAPH.with_edges(),
        replace(tiny.GRAPH, unit="gmac"),
        tiny.GRAPH.with_costs({stage.name: 1.0 for stage in tiny.GRAPH.stages}, "ms"),
    ],
    ids=["edges", "unit", "costs"],
)
def test_policies_of_different_graphs_are_refused(other: StageGraph) -> None:
    with pytest.raises(InputError, match="policies over different graphs; wanted the same graph"):
        replace(MIXTURE, dear=always(other, BIG))


@pytest.mark.parametrize("routing", [tiny.POLICY, tiny.EVERYTHING, MIXTURE], ids=range(3))
def test_whatever_can_be_routed_is_saved_and_loaded_unchanged(
    routing: Routing, tmp_path: object
) -> None:
    bundle = Bundle(routing, ("cat", "dog", "newt", "yak"), {"small": "f1", "big": "f2"})
    write_bundle(str(tmp_path), bundle)
    found = read_bundle(str(tmp_path))
    assert found == bundle
    assert type(found.policy) is type(routing)
    assert found.digest == bundle.digest


def test_the_digest_of_a_bundle_changes_with_share_and_seed() -> None:
    digests = {
        Bundle(routing, ("a",), {}).digest
        for routing in (
            MIXTURE,
            replace(MIXTURE, share=0.31),
            replace(MIXTURE, seed=6),
            MIXTURE.cheap,
            MIXTURE.dear,
            replace(MIXTURE.dear, mean=None, rules=()),
        )
    }
    assert len(digests) == 6


def test_the_answers_used_are_those_of_both_arms() -> None:
    mixture = Mixture(always(tiny.GRAPH, SMALL), always(tiny.GRAPH, BIG), 0.5)
    assert answers_used(mixture) == {SMALL, BIG}
    assert answers_used(tiny.POLICY) == {EXIT, SMALL, BIG}
    assert answers_used(always(tiny.GRAPH, EXIT)) == {EXIT}


def test_other_costs_leave_decisions_as_they_are() -> None:
    dear = tiny.GRAPH.with_edges()
    dear = dear.with_costs({stage.name: 2 * stage.cost for stage in dear.stages}, "usd")
    for routing in (tiny.EVERYTHING, MIXTURE):
        moved = with_graph(routing, dear)
        problem = tiny.problem(0, 100)
        one, two = (simulate(r, problem.outputs, problem.keys) for r in (routing, moved))
        assert moved.graph == dear
        assert one.trails == two.trails
        np.testing.assert_array_equal(one.trail_of, two.trail_of)
        np.testing.assert_allclose(two.cost, 2 * one.cost)
