import numpy as np
import pyarrow as pa
import pytest

from policy import columns
from policy.answers import answers_from_logits
from policy.columns import compact, lists, numbers, repeated
from policy.errors import InputError

LISTS = pa.list_(pa.int32())


def rows(*numbered: int) -> np.ndarray:
    return np.array(numbered, dtype=np.intp)


def test_groups_of_rows_come_in_the_order_of_the_column_with_null_where_there_is_none() -> None:
    groups = [(rows(3, 0), np.array([30, 0])), (rows(1), np.array([10]))]
    assert numbers(groups, 5, pa.int32()).to_pylist() == [0, 10, None, 30, None]
    wide = [(own, np.stack([given, given + 1], axis=1)) for own, given in groups]
    assert lists(wide, 5, LISTS).to_pylist() == [[0, 1], [10, 11], None, [30, 31], None]


def test_lists_of_several_lengths_stand_in_one_column() -> None:
    groups = [
        (rows(2), np.array([[1, 2, 3]])),
        (rows(0, 4), np.array([[4], [5]])),
        (rows(1), np.zeros((1, 0), dtype=int)),
    ]
    assert lists(groups, 5, LISTS).to_pylist() == [[4], [], [1, 2, 3], None, [5]]


@pytest.mark.parametrize("n", [0, 2])
def test_a_column_without_values_is_all_null(n: int) -> None:
    nothing = [(rows(), np.zeros((0, 3), dtype=np.int32))]
    for groups in ([], nothing):
        assert lists(groups, n, LISTS).to_pylist() == [None] * n
    assert numbers([], n, pa.int32()).to_pylist() == [None] * n


def test_more_numbers_than_a_column_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_MOST", 5)
    said = r"2 records with up to 3 numbers each has 6 of them; a column holds 5. Cut .* --topk"
    with pytest.raises(InputError, match=said):
        lists([(rows(0, 1), np.zeros((2, 3), dtype=int))], 2, LISTS)


def test_what_many_rows_share_is_given_once() -> None:
    found = repeated([("exit", "big"), None], rows(0, 1, 0), pa.list_(pa.string()))
    assert found.to_pylist() == [["exit", "big"], None, ["exit", "big"]]


def test_answers_cut_from_bigger_ones_are_copied_and_others_are_not() -> None:
    answers = answers_from_logits(np.zeros((1, 9)), None)
    assert compact(answers).classes is answers.classes
    for part in (compact(answers.top(2)).classes, compact(answers.top(2)).probabilities):
        assert part.base is None
        assert part.shape == (1, 2)
