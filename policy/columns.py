"""Arrow columns from NumPy arrays: rows that were finished in groups, put in the order of a file.

No loop here is over rows or classes, but over groups of rows, and each value is copied once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from policy.answers import Answers
from policy.errors import InputError

Group = tuple[NDArray[np.intp], NDArray[Any]]
"""Rows that have a value: their numbers in the column [m], and their values [m] or [m, k]."""

_MOST = np.iinfo(np.int32).max


def numbers(groups: Sequence[Group], n: int, kind: pa.DataType) -> pa.Array:
    """A column of n numbers; null in rows that no group has."""
    groups = [group for group in groups if group[0].size]
    if not groups:
        return pa.nulls(n, kind)
    missing, values = np.ones(n, dtype=bool), np.zeros(n, dtype=groups[0][1].dtype)
    for rows, given in groups:
        values[rows], missing[rows] = given, False
    return pa.array(values, kind, mask=missing)


def lists(groups: Sequence[Group], n: int, kind: pa.ListType) -> pa.ListArray:
    """A column of n lists of numbers; null in rows that no group has.

    Raises InputError where there are more numbers than a column of Arrow can hold.
    """
    groups = [group for group in groups if group[0].size]
    if not groups:
        return pa.nulls(n, kind)
    missing, lengths = np.ones(n, dtype=bool), np.zeros(n, dtype=np.int64)
    for rows, given in groups:
        lengths[rows], missing[rows] = given.shape[1], False
    ends = np.cumsum(lengths)
    total, width = int(lengths.sum()), int(lengths.max(initial=0))
    if total > _MOST:
        raise InputError(
            f"a shard of {n} records with up to {width} numbers each has {total} of them; a column "
            f"holds {_MOST}. Cut the shard into smaller ones, or keep fewer classes with --topk."
        )
    place = np.cumsum(~missing) - 1
    values = np.empty((n - int(missing.sum()), width), dtype=groups[0][1].dtype)
    for rows, given in groups:
        values[place[rows], : given.shape[1]] = given
    if total < values.size:  # lists of several lengths
        values = values[np.arange(width) < lengths[~missing, None]]
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    flat = pa.array(values.reshape(-1), kind.value_type)
    return pa.ListArray.from_arrays(offsets, flat, type=kind, mask=pa.array(missing))


def repeated(values: Sequence[object], of: NDArray[np.intp], kind: pa.DataType) -> pa.Array:
    """A column [n] in which row i is the value number `of[i]`."""
    return pa.array(values, kind).take(pa.array(of))


def compact(answers: Answers) -> Answers:
    """The same answers, copied where they are part of bigger arrays that they keep in memory."""
    return Answers(_owned(answers.classes), _owned(answers.probabilities), _owned(answers.entropy))


def _owned(values: NDArray[Any]) -> NDArray[Any]:
    whole = values if values.base is None else values.base
    return values if getattr(whole, "nbytes", 0) <= values.nbytes else values.copy()
