"""The pure parts of benchmarks/peers: ratios, targets, agreement, the cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.peers import sides
from benchmarks.peers.cut import Cut, cut_policy
from benchmarks.peers.labels import accuracy, check_agreement, read_labels
from benchmarks.peers.page import page
from benchmarks.peers.results import Run, fastest, ratios
from benchmarks.peers.targets import TARGETS, findings
from policy.answers import Answers
from policy.graph import Stage, StageGraph
from policy.rules import STOP


def runs_of(*seconds: float) -> list[Run]:
    return [Run(100, each, each + 1, 2 * each, 0.5, 0.8) for each in seconds]


def test_ratios_are_those_of_the_runs_of_one_turn() -> None:
    runs = {"theirs": runs_of(2, 30), "ours": runs_of(1, 10)}
    assert ratios(runs, ["theirs"], "ours") == pytest.approx([2, 3])


def test_ratios_are_of_the_time_of_an_image() -> None:
    more = [replace(run, images=200) for run in runs_of(2)]
    assert ratios({"theirs": more, "ours": runs_of(1)}, ["theirs"], "ours") == pytest.approx([1])


def test_ceilings_one_after_the_other_add_up() -> None:
    runs = {"decode": runs_of(1), "compute": runs_of(2), "ours": runs_of(4)}
    assert ratios(runs, ["decode", "compute"], "ours") == pytest.approx([0.75])


def test_the_fastest_is_that_with_the_lowest_median() -> None:
    assert fastest({"a": runs_of(1, 9, 9), "b": runs_of(5, 5, 5)}, ["a", "b"]) == "b"


def test_a_speed_up_is_held_against_what_costs_predict() -> None:
    runs = {sides.PLAIN_TUNED.name: runs_of(3), sides.OURS_FITTED.name: runs_of(2)}
    (found,) = findings(runs, predicted=1.5)
    assert found.median == pytest.approx(1)
    assert found.verdict == "yes"


def test_of_two_hand_written_loops_the_faster_one_counts() -> None:
    slow, fast, ours = sides.BY_HAND.name, sides.BY_HAND_CORES.name, sides.OURS_FITTED.name
    (found,) = findings({slow: runs_of(9), fast: runs_of(1), ours: runs_of(2)}, predicted=None)
    assert (found.theirs, found.median, found.verdict) == (fast, 0.5, "no")


def test_a_sum_of_ceilings_needs_all_of_them() -> None:
    found = findings({sides.DECODE.name: runs_of(1), sides.OURS.name: runs_of(4)}, predicted=None)
    assert found == []


def test_every_target_is_on_the_page() -> None:
    runs = {side.name: runs_of(1, 2) for side in sides.SIDES}
    peers = {side.name: side.peer for side in sides.SIDES}
    text = page(["head"], runs, peers, findings(runs, predicted=1.2))
    assert all(target.title in text for target in TARGETS)
    assert all(f"| {side.name} |" in text for side in sides.SIDES)


def test_names_of_sides_are_their_own() -> None:
    assert len({side.name for side in sides.SIDES}) == len(sides.SIDES)


def test_sides_that_differ_in_more_than_one_percent_are_refused() -> None:
    first = {str(n): n for n in range(100)}
    check_agreement({"a": first, "b": first | {"0": 1}})
    with pytest.raises(ValueError, match=r"'b' and 'a' differ in 2.0% of the labels"):
        check_agreement({"a": first, "b": first | {"0": 1, "1": 0}})


def test_labels_of_other_images_are_refused() -> None:
    assert accuracy({"a": 1, "b": 2}, {"a": 1, "b": 3}, "loop") == 0.5
    with pytest.raises(ValueError, match=r"loop: labelled 1 images, wanted 2.*missing \['b'\]"):
        accuracy({"a": 1}, {"a": 1, "b": 3}, "loop")


def test_an_image_labelled_twice_is_refused(tmp_path: Path) -> None:
    for name in "xy":
        pq.write_table(pa.table({"key": ["a"], "label": [1]}), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="2 rows for 1 images"):
        read_labels(tmp_path)


def test_a_cut_stops_where_the_first_network_is_sure_enough() -> None:
    stages = (Stage("first", 1, answers=True), Stage("second", 2, answers=True))
    policy = cut_policy(StageGraph(stages, "ms"), Cut("first", "second", 0.5))
    probabilities = np.array([[0.4], [0.5], [0.9]], dtype=np.float32)
    answers = Answers(np.zeros((3, 1), np.int32), probabilities, np.zeros(3, np.float32))
    taken = {action: rows.tolist() for action, rows in policy.split({"first": answers})}
    assert taken == {STOP: [1, 2], "second": [0]}
