from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from real_data import DATA, needs

from policy.answers import Answers, answers_from_probabilities
from policy.bounds import p_value
from policy.certify import certify
from policy.errors import InputError
from policy.graph import Stage, StageGraph
from policy.losses import Objective
from policy.problem import Problem
from policy.rules import always
from policy.soundness import check_keys, check_size, check_sound, images_needed

PREDICTIONS = DATA / "predictions/imagenet_val"
SHARES = {"heads": 0.2, "fit": 0.3, "certify": 0.5}
BIG = tiny.GRAPH.full


def problem(n: int = 600, seed: int = 0) -> Problem:
    outputs = tiny.outputs(np.random.default_rng(seed), n)
    return Problem(tiny.GRAPH, [f"s/{i}" for i in range(n)], tiny.labels(n), outputs)


def known_labels(n: int, right: float, classes: int, rng: np.random.Generator) -> Problem:
    """One network that is right on a share of the images; classes are even."""
    labels = rng.integers(0, classes, n).astype(np.int32)
    wrong = (labels + rng.integers(1, classes, n)) % classes
    best = np.where(rng.random(n) < right, labels, wrong).astype(np.int32)
    sure = rng.uniform(0.5, 1, n).astype(np.float32)
    answers = Answers(best[:, None], sure[:, None], 1 - sure)
    graph = StageGraph((Stage("only", 1.0, answers=True),), "ms")
    return Problem(graph, [f"{i}" for i in range(n)], labels, {"only": answers})


def shuffled(on: Problem, rng: np.random.Generator) -> Problem:
    return replace(on, labels=rng.permutation(on.labels))


def refused(on: Problem) -> bool:
    try:
        check_sound({"certify": on})
    except InputError as error:
        return "look sh" in str(error)  # shuffled or shifted
    return False


@pytest.mark.parametrize("seed", range(5))
def test_sound_parts_are_accepted(seed: int) -> None:
    check_sound(problem(seed=seed).split(SHARES))


def test_keys_shared_between_parts_are_refused_with_their_number() -> None:
    on = problem()
    parts = {"fit": on.take(np.arange(100)), "certify": on.take(np.arange(90, 300))}
    with pytest.raises(InputError, match=r"'fit' and 'certify' share 10 keys, for example 's/90'"):
        check_sound(parts)


def test_any_two_parts_are_compared() -> None:
    on = problem()
    parts = {
        name: on.take(np.arange(start, start + 100))
        for name, start in zip("abc", (0, 100, 0), strict=True)
    }
    with pytest.raises(InputError, match=r"'a' and 'c' share 100 keys"):
        check_keys(parts)


def test_keys_that_come_twice_are_refused_before_they_count_twice() -> None:
    on = problem()
    copied = on.take(np.r_[np.arange(600), np.arange(5), np.arange(5)])
    with pytest.raises(InputError, match=r"5 of 610 keys come more than once .*'all'.* 's/0'"):
        check_keys({"all": copied})
    with pytest.raises(InputError, match="come more than once"):
        check_sound(copied.split(SHARES))


def test_labels_of_one_class_are_refused() -> None:
    on = problem()
    part = on.take(np.flatnonzero(on.labels == 2))
    with pytest.raises(InputError, match=r"all 150 labels of the part 'certify' are class 2"):
        check_sound({"fit": on.take(np.flatnonzero(on.labels != 2)), "certify": part})


def test_a_part_without_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"all 0 labels of the part 'heads' are nothing"):
        check_sound({"heads": problem().take(np.arange(0))})


def constant(answers: Answers) -> Answers:
    return replace(answers, probabilities=np.full_like(answers.probabilities, 0.25))


def test_constant_scores_are_refused_with_their_spread() -> None:
    on = problem()
    level = {name: constant(a) if name != BIG else a for name, a in on.outputs.items()}
    with pytest.raises(InputError, match=r"'small' is the same for all 600 .*0.25.* deviation 0\)"):
        check_sound({"certify": replace(on, outputs=level)})


def test_one_answer_that_varies_is_enough() -> None:
    on = problem()
    check_sound(
        {"certify": replace(on, outputs=on.outputs | {"small": constant(on.outputs["small"])})}
    )


def test_the_only_answer_of_a_graph_must_vary() -> None:
    on = known_labels(200, 0.9, 4, np.random.default_rng(0))
    with pytest.raises(InputError, match="the confidence of 'only' is the same"):
        check_sound({"all": replace(on, outputs={"only": constant(on.outputs["only"])})})


def test_shuffled_labels_are_refused_with_the_accuracy_of_chance() -> None:
    on = problem()
    labels = np.random.default_rng(1).permutation(on.labels)
    right = int((on.outputs[BIG].classes[:, 0] == labels).sum())
    with pytest.raises(
        InputError,
        match=rf"'certify' look shuffled: 'big' is right on {right} of 600 .* on 150.0 \+- 10.6",
    ):
        check_sound({"certify": replace(on, labels=labels)})


def test_labels_in_another_order_of_classes_are_refused() -> None:
    on = problem()
    swapped = np.array([1, 0, 3, 2], dtype=np.int32)[on.labels]
    assert refused(replace(on, labels=swapped))


def test_a_network_that_always_says_the_same_is_refused() -> None:
    on = known_labels(300, 0.9, 3, np.random.default_rng(0))
    same = replace(on.outputs["only"], classes=np.zeros((300, 1), np.int32))
    assert refused(replace(on, outputs={"only": same}))


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_counted_from_elsewhere_are_refused_though_neighbours_are_alike(shift: int) -> None:
    rng = np.random.default_rng(2)
    on = known_labels(2000, 0.7, 100, rng)
    near = (on.labels + rng.choice([-1, 0, 1], 2000, p=[0.1, 0.8, 0.1])).astype(np.int32)
    alike = replace(on.outputs["only"], classes=near[:, None])
    on = replace(on, outputs={"only": alike})
    check_sound({"all": on})
    right, back = int((near == on.labels).sum()), "[+]1" if shift < 0 else "-1"
    with pytest.raises(InputError, match=rf"look shifted: .* {right} if {back} is added"):
        check_sound({"all": replace(on, labels=on.labels + shift)})


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("n", [40, 400])
def test_about_one_of_a_thousand_shuffled_parts_passes(classes: int, n: int) -> None:
    rng = np.random.default_rng(3)
    accepted = sum(
        not refused(shuffled(known_labels(n, 0.9, classes, rng), rng)) for _ in range(1000)
    )
    assert accepted <= 4  # 1 + 3 standard errors


@pytest.mark.parametrize(
    ("classes", "right", "n", "most"),
    [(2, 0.75, 100, 0.08), (2, 0.75, 300, 0.0), (2, 0.95, 40, 0.01), (1000, 0.3, 40, 0.0)],
)
def test_networks_better_than_chance_are_hardly_ever_refused(
    classes: int, right: float, n: int, most: float
) -> None:
    rng = np.random.default_rng(4)
    count = sum(refused(known_labels(n, right, classes, rng)) for _ in range(500))
    assert count / 500 <= most


def test_too_few_images_are_refused_with_the_number_needed() -> None:
    check_size(299, "excess", 0.01, 0.95)
    with pytest.raises(InputError, match=r"^298 images to certify on; excess .* at least 299 even"):
        check_size(298, "excess", 0.01, 0.95)


def test_an_excess_of_nothing_at_all_is_refused_and_a_loss_of_it_is_not() -> None:
    with pytest.raises(InputError, match="excess at most 0 can be proved on no number of images"):
        check_size(10**6, "excess", 0.0, 0.95)
    check_size(100, "loss", 0.0, 0.95)


@pytest.mark.parametrize("max_loss", [0.3, 0.02, 0.001])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_images_needed_are_the_least_that_can_pass(max_loss: float, confidence: float) -> None:
    wanted = images_needed("excess", max_loss, confidence)
    assert wanted == int(np.ceil(np.log(1 - confidence) / np.log1p(-max_loss)))


@pytest.mark.parametrize("objective", ["excess", "loss"])
def test_with_one_image_less_than_needed_nothing_passes(objective: Objective) -> None:
    wanted = images_needed(objective, 0.05, 0.95)
    assert wanted is not None
    assert p_value(np.zeros(wanted), 0.05, objective) <= 0.05
    assert p_value(np.zeros(wanted - 1), 0.05, objective) > 0.05


def test_shuffled_labels_would_certify_what_sound_ones_do_not() -> None:
    rng = np.random.default_rng(5)
    on = problem(2000)
    cheap = [always(tiny.GRAPH, "small.block1.exit")]
    labels = rng.permutation(on.labels)
    assert not certify(cheap, on, 0.25, 0.95)[1].passed
    assert certify(cheap, replace(on, labels=labels), 0.25, 0.95)[1].passed
    assert refused(replace(on, labels=labels))


def imagenet(network: str) -> Problem:
    table = pq.read_table(PREDICTIONS / f"{network}.parquet")
    classes = np.array(table["classes"].to_pylist(), np.int32)
    probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
    graph = StageGraph((Stage(network, 1.0, answers=True),), "ms")
    return Problem(
        graph,
        table["key"].to_pylist(),
        table["label"].to_numpy().astype(np.int32),
        {network: answers_from_probabilities(classes, probabilities)},
    )


@needs("predictions", PREDICTIONS)
def test_imagenet_labels_are_sound_and_one_off_they_are_not() -> None:
    on = imagenet("alexnet_pytorch").take(np.arange(5000))
    check_sound(on.split(SHARES))
    for shift in (-1, 1):
        assert refused(replace(on, labels=on.labels + shift))
    assert refused(shuffled(on, np.random.default_rng(6)))
