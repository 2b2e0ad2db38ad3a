"""Reading the pooled features of a table's stages, a bounded part at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from policy.errors import InputError
from policy.files import damaged, filesystem_of
from policy.rows import FEATURES_SCHEMA
from policy.table import Table
from policy.table_manifest import features_path, read_manifest

MOST_NOT_FINITE = 0.01
"""The share of rows that may be left out (or one row); beyond it the stage is no use as an exit."""

_ROWS_AT_ONCE = 2048  # 8 MB of 2,048 features
_BUFFER_BYTES = 1 << 20  # read pages as they are needed, not a shard's whole column

FeatureBatch = tuple[NDArray[np.intp], NDArray[np.float16]]
"""Row numbers [n] of a table, and features [n, features] of one stage for them."""


def feature_batches(
    folder: str,
    table: Table,
    stage: str,
    rows: NDArray[np.intp],
    order: np.random.Generator | None = None,
) -> Iterator[FeatureBatch]:
    """Yield one stage's features for these rows of a table that was read from `folder`.

    Each row comes once, in the table's order; with `order`, the shards come in random order. Rows
    with a feature that float16 cannot hold (NaN, or beyond 65504) are left out, as the router
    rejects such images. Raises InputError if they are more than MOST_NOT_FINITE of all, if a file
    is missing or damaged, and if it holds other keys than the answers.
    """
    width = lost = 0
    for path, some, places in _by_shard(folder, table, stage, rows, order):
        for found, features in _of_shard(path, table, some, places):
            width = width or features.shape[1]
            if features.shape[1] != width:
                raise InputError(
                    f"{path}: holds {features.shape[1]} features, other shards {width}. Extract "
                    "the table again."
                )
            finite = np.isfinite(features).all(axis=1)
            lost += int((~finite).sum())
            if lost > max(1, MOST_NOT_FINITE * len(rows)):
                raise InputError(
                    f"{path}: {lost} of {len(rows)} rows have features that float16 cannot hold "
                    f"(NaN, or beyond 65504), first {table.keys[found[~finite][0]]!r}. No exit can "
                    f"answer from stage {stage!r}; take it out of the networks file."
                )
            if finite.any():
                yield found[finite], features[finite]


def _by_shard(
    folder: str,
    table: Table,
    stage: str,
    rows: NDArray[np.intp],
    order: np.random.Generator | None,
) -> Iterator[tuple[str, NDArray[np.intp], NDArray[np.intp]]]:
    """The files that hold these rows: path, the rows there, and their numbers in the file."""
    if table.places is None:
        raise InputError("this table was not read from a folder, so it has no features")
    manifest = read_manifest(folder)
    shards = manifest.shards
    rows = rows[np.argsort(table.places[rows])]
    places = table.places[rows]
    ends = np.cumsum(list(shards.values()), dtype=np.intp)
    starts = np.concatenate([[0], ends[:-1]])
    first, last = np.searchsorted(places, starts), np.searchsorted(places, ends)
    numbered = list(enumerate(shards))
    for at in range(len(shards)) if order is None else order.permutation(len(shards)):
        number, shard = numbered[at]
        some = slice(first[number], last[number])
        if rows[some].size:
            path = f"{folder}/{manifest.where(features_path(stage, shard))}"
            yield path, rows[some], places[some] - starts[number]


def _of_shard(
    path: str, table: Table, rows: NDArray[np.intp], places: NDArray[np.intp]
) -> Iterator[FeatureBatch]:
    """The features of some rows of one file, at these ascending places there."""
    filesystem, local = filesystem_of(path)
    options = {"page_checksum_verification": True, "buffer_size": _BUFFER_BYTES}
    seen = 0
    try:
        with pq.ParquetFile(local, filesystem=filesystem, **options) as parquet:
            if not parquet.schema_arrow.equals(FEATURES_SCHEMA):
                raise InputError(f"{path}: not a file of features, or damaged. Extract it again.")
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=["key", "features"]):
                first, last = np.searchsorted(places, (seen, seen + len(batch)))
                if first < last:
                    chosen = batch.take(pa.array(places[first:last] - seen))
                    _check_keys(path, chosen["key"], table, rows[first:last])
                    yield rows[first:last], _matrix(path, chosen["features"])
                seen += len(batch)
    except (OSError, ValueError, pa.ArrowException) as error:  # damaged text: UnicodeDecodeError
        raise damaged(path, error) from error
    if places[-1] >= seen:
        raise _misaligned(path, table.keys[rows[-1]], f"its {seen} rows end before it")


def _check_keys(path: str, found: pa.Array, table: Table, rows: NDArray[np.intp]) -> None:
    wanted = pa.array([table.keys[row] for row in rows], pa.string())
    same = pc.equal(found, wanted).to_numpy(zero_copy_only=False)
    if not same.all():
        at = int(np.argmin(same))
        raise _misaligned(path, wanted[at].as_py(), f"it has {found[at].as_py()!r} there")


def _misaligned(path: str, key: str, found: str) -> InputError:
    return InputError(
        f"{path}: holds other rows than the answers: wanted key {key!r}, but {found}. Delete the "
        "shard's files from the table and extract them again."
    )


def _matrix(path: str, column: pa.Array) -> NDArray[np.float16]:
    """[n, features] of a list column whose lists are all of one length, without nulls."""
    values, lengths = column.flatten(), pc.min_max(pc.list_value_length(column)).as_py()
    if column.null_count or values.null_count or lengths["min"] != lengths["max"]:
        raise InputError(
            f"{path}: a row with answers has no features, or not as many as the others. Delete the "
            "shard's files from the table and extract them again."
        )
    matrix: NDArray[np.float16] = values.to_numpy().reshape(len(column), -1)
    return matrix
