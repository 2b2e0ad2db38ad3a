import json
from pathlib import Path
from typing import Any

import pytest

from policy.errors import OutputInUse
from policy.manifest import written
from policy.rows import LABELS_SCHEMA, OK, parquet_bytes
from transforms.commit import RUN, Output
from transforms.done import commit_shard, done_before, read_marker

ORIGIN = {"made_by": {"policy": "p1"}, "input": "s0.tar, 10 bytes"}
TIMES = {"started": 1.0, "finished": 2.0}
MARKER, ROWS = "s0.json", "s0.parquet"


def says(label: int = 0, **changes: Any) -> dict[str, Any]:
    return {**ORIGIN, "shard": "s0", "records": 1, "statuses": {OK: 1}, "said": label, **changes}


def parquet(label: int = 0, **changes: Any) -> bytes:
    rows = [{"key": "s0/0", "label": label, "status": OK}]
    return parquet_bytes(rows, LABELS_SCHEMA, says(label, **changes))


def commit(folder: Path, label: int = 0, run: str = "run") -> dict[str, Any]:
    files = {ROWS: parquet(label)}
    return commit_shard(Output(str(folder), run), MARKER, files, says(label), TIMES)


def sums(content: bytes) -> dict[str, Any]:
    file = written(content)
    return {ROWS: {"bytes": file.bytes, "sha256": file.sha256}}


def marked(folder: Path) -> Any:
    return json.loads((folder / MARKER).read_text())


def test_a_marker_says_what_the_files_say_and_their_sums(tmp_path: Path) -> None:
    found = commit(tmp_path)
    assert found == marked(tmp_path) == {**says(), "files": sums(parquet()), **TIMES}


def test_who_comes_second_lets_the_first_ones_file_and_marker_stand(tmp_path: Path) -> None:
    """As a bundle run twice does, even where a GPU gives other last bits."""
    commit(tmp_path, label=1)
    found = commit(tmp_path, label=2, run="second")
    assert found == marked(tmp_path)
    assert found["said"] == 1
    assert (tmp_path / ROWS).read_bytes() == parquet(1)


def test_a_file_left_without_a_marker_is_adopted_with_what_it_says(tmp_path: Path) -> None:
    (tmp_path / ROWS).write_bytes(parquet(1))
    found = commit(tmp_path, label=2)
    assert (tmp_path / ROWS).read_bytes() == parquet(1)
    assert found == marked(tmp_path)
    assert (found["said"], found["files"]) == (1, sums(parquet(1)))


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"PAR1",
        parquet(1)[:-10],
        parquet(1)[:-300] + bytes(100) + parquet(1)[-200:],
        parquet(1).replace(b"s0/0", b"s0/1"),
        b"theirs",
        parquet(1, made_by={"policy": "p2"}),
        parquet(1, input="s0.tar, 11 bytes"),
    ],
    ids=["empty", "magic", "cut", "zeros", "flipped", "text", "policy", "input"],
)
def test_what_is_torn_or_made_from_something_else_is_replaced(tmp_path: Path, left: bytes) -> None:
    (tmp_path / ROWS).write_bytes(left)
    found = commit(tmp_path, label=2)
    assert (tmp_path / ROWS).read_bytes() == parquet(2)
    assert found == marked(tmp_path)
    assert (found["said"], found["files"]) == (2, sums(parquet(2)))


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"files": 1}', b'{"files": {}}'])
def test_a_marker_that_does_not_fit_the_file_is_replaced(tmp_path: Path, left: bytes) -> None:
    (tmp_path / MARKER).write_bytes(left)
    assert commit(tmp_path) == marked(tmp_path)


def test_only_a_shard_with_marker_and_files_of_the_same_origin_is_done(tmp_path: Path) -> None:
    output = Output(str(tmp_path), "run")
    assert done_before(output, MARKER, ORIGIN) is None
    commit(tmp_path)
    assert done_before(output, MARKER, ORIGIN) == marked(tmp_path)
    assert done_before(output, MARKER, {**ORIGIN, "input": "other"}) is None
    assert done_before(output, MARKER, {**ORIGIN, "made_by": {"policy": "p2"}}) is None
    (tmp_path / ROWS).unlink()
    assert done_before(output, MARKER, ORIGIN) is None


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"files": []}', b"\xff", b"NaN"])
def test_a_damaged_marker_marks_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    (tmp_path / ROWS).write_bytes(parquet())
    output = Output(str(tmp_path), "run")
    assert read_marker(output, MARKER) is None
    assert done_before(output, MARKER, ORIGIN) is None


def test_a_worker_that_outlived_its_run_replaces_nothing_of_another_result(tmp_path: Path) -> None:
    ours, theirs = b'{"made_by": {"policy": "p1"}}', b'{"made_by": {"policy": "p2"}}'
    late = Output(str(tmp_path), "late", says=ours)
    (tmp_path / RUN).write_bytes(theirs)
    other = parquet(made_by={"policy": "p2"})
    (tmp_path / ROWS).write_bytes(other)
    with pytest.raises(OutputInUse, match="made by something else by now; this worker is of a run"):
        commit_shard(late, MARKER, {ROWS: parquet()}, says(), TIMES)
    assert (tmp_path / ROWS).read_bytes() == other
    (tmp_path / RUN).write_bytes(ours)
    commit_shard(late, MARKER, {ROWS: parquet()}, says(), TIMES)
    assert (tmp_path / ROWS).read_bytes() == parquet()
