"""Some of the faults of benchmarks/faults, which does all of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from printed import rows

from benchmarks.faults import readers
from benchmarks.faults.injector import compiler
from policy.manifest import written
from policy.rows import LABELS_SCHEMA, OK, parquet_bytes

ROOT = Path(__file__).parents[1]

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler (cc)")


def disturbed(only: str, every: int, doubles: int) -> list[dict[str, str]]:
    arguments = ["--only", only, "--every", str(every), "--doubles", str(doubles)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return rows(run.stdout)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("only", "every"), [("classify fresh", 43), ("classify overwrite", 71)])
def test_after_any_fault_readers_see_one_result_and_the_next_run_makes_it_whole(
    only: str, every: int
) -> None:
    found = disturbed(only, every, doubles=2)
    assert len(found) == 2
    for row in found:
        assert int(row["injected"]) == int(row["survived"]) > 0
        assert [row[what] for what in ("torn reads", "lost", "duplicated")] == ["0", "0", "0"]


@needs_compiler
@pytest.mark.slow
def test_after_any_fault_a_registry_has_the_old_current_or_the_new() -> None:
    command = [sys.executable, "-m", "benchmarks.faults.policies", "--every", "9"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = rows(run.stdout)
    assert [row["run"] for row in found] == ["publish the first", "publish another", "rollback"]
    for row in found:
        assert int(row["old"]) + int(row["new"]) == int(row["survived"]) == int(row["injected"]) > 0


CONTENT = parquet_bytes([{"key": "s/0", "status": OK}], LABELS_SCHEMA, {})
GOOD = {"bytes": len(CONTENT), "sha256": written(CONTENT).sha256}


def output(folder: Path, **files: Any) -> Path:
    (folder / "_manifest.json").write_text(json.dumps({"files": files}))
    (folder / "s.parquet").write_bytes(CONTENT)
    return folder


def test_a_reader_follows_the_manifest(tmp_path: Path) -> None:
    assert readers.result(tmp_path) is None
    found = readers.result(output(tmp_path, t={**GOOD, "at": "s.parquet"}))
    assert found == {}  # a name without .parquet holds no rows
    found = readers.result(output(tmp_path, **{"t.parquet": {**GOOD, "at": "s.parquet"}}))
    assert found == {"t.parquet": [("s/0", "None", "None", "None", OK)]}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({**GOOD, "at": "none.parquet"}, "not there"),
        ({**GOOD, "bytes": 1}, "not what the manifest says"),
        ({**GOOD, "sha256": "0"}, "not what the manifest says"),
    ],
)
def test_a_reader_notices_what_the_manifest_does_not_say(
    tmp_path: Path, file: dict[str, Any], said: str
) -> None:
    with pytest.raises(readers.TornError, match=said):
        readers.result(output(tmp_path, **{"s.parquet": file}))


def test_a_reader_notices_half_a_file_and_a_marker_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "s.parquet").write_bytes(CONTENT[:-9])
    with pytest.raises(readers.TornError, match="cannot be read"):
        readers.check_files(tmp_path)
    for files in ({"none.parquet": GOOD}, {"s.parquet": GOOD}):
        (tmp_path / "s.json").write_text(json.dumps({"files": files}))
        with pytest.raises(readers.TornError, match=r"names \w+\.parquet, which is"):
            readers.check_markers(tmp_path)


def test_rows_that_are_lost_or_there_twice_are_counted() -> None:
    wanted = {"s": [("a",), ("b",), ("c",)]}
    assert readers.lost_and_twice({"s": [("a",), ("b",), ("b",)]}, wanted) == (1, 1)
    assert readers.lost_and_twice({}, wanted) == (3, 0)
    assert readers.lost_and_twice(wanted, wanted) == (0, 0)
