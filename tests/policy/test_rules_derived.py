"""What a policy derives from the answers on a trail: means, scores, and the label."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from by_hand import label_of_image, scores_of_image

from policy.errors import InputError
from policy.features import Feature
from policy.means import Mean
from policy.rules import STOP, Policy, Rule, always
from policy.schema import from_json, to_json

EXIT, SMALL, BIG = tiny.GRAPH.answers
AT_EXIT, AT_SMALL = tiny.EVERYTHING.rules
MEAN = Mean((("small", 2.0),), k=3)


def looking_at(answer: str, *features: Feature) -> Rule:
    """A rule that goes on to `big` wherever the sum of these features is above 0."""
    weights = ((0.0,) * len(features), (1.0,) * len(features))
    return Rule(answer, (STOP, BIG), weights, (0.0, 0.0), features)


def policy_of(*features: Feature, mean: Mean | None = None) -> Policy:
    """The exit leads to `small`, where these features are looked at."""
    to_small = Rule(EXIT, (SMALL,), ((),), (0.0,))
    return Policy(tiny.GRAPH, EXIT, (to_small, looking_at(SMALL, *features)), mean)


def test_the_label_is_the_last_answer_or_the_mean_of_the_trail() -> None:
    outputs = tiny.outputs(np.random.default_rng(0), 20)
    got = {name: outputs[name] for name in (EXIT, BIG)}
    assert tiny.POLICY.label(got) is outputs[BIG]
    assert tiny.EVERYTHING.label({BIG: outputs[BIG]}) is outputs[BIG]
    label = tiny.EVERYTHING.label(got)
    assert label.classes.shape == (20, 3)
    for i in range(20):
        pairs, entropy = label_of_image(tiny.EVERYTHING.mean, (EXIT, BIG), outputs, i)
        assert label.classes[i].tolist() == [one for one, _ in pairs]
        np.testing.assert_allclose(label.probabilities[i], [p for _, p in pairs], rtol=1e-6)
        assert label.entropy[i] == pytest.approx(entropy, abs=1e-5)


def test_the_score_of_a_rule_is_that_of_its_first_action() -> None:
    outputs = tiny.outputs(np.random.default_rng(1), 20)
    seen = tiny.EVERYTHING.seen({name: outputs[name] for name in (EXIT, SMALL)})
    assert seen.score_of is not None
    found = seen.score_of(EXIT)
    wanted = [scores_of_image(tiny.EVERYTHING, (EXIT,), outputs, i)[0] for i in range(20)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_score_may_be_made_of_scores() -> None:
    names = ("a", "b", "c")
    stages = tuple(replace(tiny.GRAPH.stage[BIG], name=name, needs=("image",)) for name in names)
    graph = replace(
        tiny.GRAPH,
        stages=tuple(replace(stage, cost=float(i)) for i, stage in enumerate(stages)),
    )
    score = [Feature(name, "score") for name in names]
    policy = Policy(
        graph,
        "a",
        (
            Rule("a", ("b",), ((0.5,),), (0.0,), (Feature("a", "max_probability"),)),
            Rule("b", ("c",), ((0.5,),), (0.25,), (score[0],)),
            Rule("c", (STOP,), ((1.0, 1.0),), (0.0,), (score[0], score[1])),
        ),
    )
    outputs = dict(zip(names, tiny.outputs(np.random.default_rng(0), 9).values(), strict=True))
    first = 0.5 * outputs["a"].probabilities[:, 0].astype(float)
    found = policy.rules[2].scores(policy.seen(outputs))[:, 0]
    np.testing.assert_allclose(found, first + (0.25 + 0.5 * first))


@pytest.mark.parametrize(
    ("features", "k", "wanted"),
    [
        ((Feature(SMALL, "entropy"),), 3, 3),
        ((Feature(SMALL, "margin"),), 1, 2),
        ((Feature(SMALL, "margin"),), None, None),
        ((Feature(SMALL, "tail", 3, mean=True),), 4, 4),
        ((Feature(SMALL, "overlap", 2, other=EXIT),), 1, 2),
    ],
)
def test_the_classes_needed_are_enough_for_rules_and_mean(
    features: tuple[Feature, ...], k: int | None, wanted: int | None
) -> None:
    assert policy_of(*features, mean=Mean((), k)).classes_needed == wanted


def test_a_policy_with_everything_reads_back_from_its_json() -> None:
    assert from_json(Policy, to_json(tiny.EVERYTHING), "x") == tiny.EVERYTHING


def test_a_policy_is_its_own_only_arm() -> None:
    assert tiny.POLICY.arms == (tiny.POLICY,)
    assert tiny.POLICY.arm_of(["a", "b"]).tolist() == [0, 0]


def test_looking_at_a_mean_without_weights_is_refused() -> None:
    message = "the rule at 'small' looks at a mean; the policy has no weights"
    with pytest.raises(InputError, match=message):
        policy_of(Feature(SMALL, "entropy", mean=True))


@pytest.mark.parametrize(
    ("feature", "found"),
    [
        (Feature(SMALL, "tail", 4, mean=True), "4"),
        (Feature(SMALL, "class_probability", 0, mean=True), "all"),
    ],
)
def test_looking_at_more_classes_than_a_mean_has_is_refused(feature: Feature, found: str) -> None:
    message = f"the rule at 'small' looks at {found} classes of a mean of the 3 best; wanted"
    with pytest.raises(InputError, match=message):
        policy_of(feature, mean=MEAN)
    policy_of(feature, mean=replace(MEAN, k=None))


@pytest.mark.parametrize("answer", [EXIT, SMALL])
def test_looking_at_a_score_that_no_earlier_rule_gives_is_refused(answer: str) -> None:
    policy = Policy(tiny.GRAPH, EXIT, (AT_EXIT, replace(AT_SMALL, actions=(STOP, BIG))), MEAN)
    rules = {rule.answer: rule for rule in policy.rules}
    wrong = looking_at(answer, Feature(answer, "score"))
    message = f"the rule at '{answer}' looks at the score of '{answer}'; wanted an earlier answer"
    with pytest.raises(InputError, match=message):
        replace(policy, rules=tuple({**rules, answer: wrong}.values()))


def test_looking_at_the_score_of_an_answer_without_a_rule_is_refused() -> None:
    """Nothing leads on from it, but for a rule of its own."""
    graph = replace(tiny.GRAPH, edges=((EXIT, SMALL), (SMALL, BIG)))
    rules = (Rule(EXIT, (SMALL,), ((),), (0.0,)), looking_at(SMALL, Feature(EXIT, "score")))
    assert Policy(graph, EXIT, rules).trails[-1] == (EXIT, SMALL, BIG)
    with pytest.raises(InputError, match=r"looks at 'small.block1.exit', which some trail to it"):
        Policy(graph, SMALL, rules[1:])


def test_a_comparison_with_an_answer_that_some_trail_has_not_got_is_refused() -> None:
    compared = Feature(BIG, "agreement", other=SMALL)
    rule = Rule(BIG, (STOP,), ((1.0,),), (0.0,), (compared,))
    message = "the rule at 'big' looks at 'small', which some trail to it has not got"
    with pytest.raises(InputError, match=message):
        replace(tiny.POLICY, rules=(*tiny.POLICY.rules, rule))


def test_a_weight_for_what_is_no_answer_is_refused() -> None:
    with pytest.raises(InputError, match=r"'smal' is not an answer; answers are"):
        replace(always(tiny.GRAPH, BIG), mean=Mean((("smal", 2.0),), None))
