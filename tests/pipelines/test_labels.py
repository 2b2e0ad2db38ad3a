import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels import LABELS, Plan
from pipelines.output import Mode, known_manifest, opened
from policy.errors import InputError
from policy.manifest import LabelsManifest, written
from policy.rows import LABELS_SCHEMA, OK, parquet_bytes
from transforms.commit import Output
from transforms.done import commit_shard
from transforms.shards import Shard

MADE_BY = {"policy": "p1", "--topk": "5"}
GOOD, BAD = {OK: 1}, {"decode": 1}


def shard(name: str, size: int = 10) -> Shard:
    return Shard(name, f"in/{name}.tar", size, 0.0)


A, B, C = shard("a"), shard("b"), shard("day1/c")
ALL = (A, B, C)


def label(output: Output, at: Shard, statuses: Mapping[str, int] = GOOD, by: Any = None) -> None:
    says = {
        "made_by": by or MADE_BY,
        "input": at.identity,
        "shard": at.name,
        "records": sum(statuses.values()),
        "statuses": dict(statuses),
    }
    rows = parquet_bytes([{"key": f"{at.name}/0", "status": OK}], LABELS_SCHEMA, says)
    commit_shard(output, f"{at.name}.json", {f"{at.name}.parquet": rows}, says, {})


@contextmanager
def planned(root: Path, mode: Mode, shards: tuple[Shard, ...] = ALL) -> Iterator[Plan]:
    with opened(str(root), mode, LABELS, MADE_BY) as session:
        yield Plan.of(session, dict.fromkeys(shards, 1), MADE_BY)


def run(root: Path, mode: Mode = "resume", shards: tuple[Shard, ...] = ALL) -> Plan:
    """Do all that is to do, and publish it."""
    with planned(root, mode, shards) as plan:
        for at in plan.to_do:
            label(plan.session.output, at)
        plan.publish()
        return plan


def published(root: Path) -> LabelsManifest:
    manifest = known_manifest(str(root), LABELS)
    assert manifest is not None
    return manifest


def to_do(root: Path, mode: Mode, shards: tuple[Shard, ...] = ALL) -> set[str]:
    with planned(root, mode, shards) as plan:
        return {at.name for at in plan.to_do}


def test_at_first_all_is_to_do_and_then_nothing(tmp_path: Path) -> None:
    assert to_do(tmp_path, "resume") == {"a", "b", "day1/c"}
    run(tmp_path)
    assert to_do(tmp_path, "resume") == set()
    assert to_do(tmp_path, "retry-failed") == set()


def test_a_shard_that_was_marked_before_a_crash_is_not_to_do(tmp_path: Path) -> None:
    label(Output(str(tmp_path), "dead"), B)
    assert to_do(tmp_path, "resume") == {"a", "day1/c"}


def test_overwrite_does_all_but_what_it_has_done_itself(tmp_path: Path) -> None:
    run(tmp_path)
    with planned(tmp_path, "overwrite") as plan:
        assert plan.to_do == ALL
        label(plan.session.output, B)
    assert to_do(tmp_path, "overwrite") == {"a", "day1/c"}


def test_retry_does_shards_with_rejected_records_and_those_that_changed(tmp_path: Path) -> None:
    output = Output(str(tmp_path), "dead")
    label(output, A)
    label(output, B, BAD)
    label(output, C, {"duplicate": 1})  # no failure
    run(tmp_path)
    assert to_do(tmp_path, "retry-failed") == {"b"}
    assert to_do(tmp_path, "retry-failed", (shard("a", 11), B, C)) == {"a", "b"}


def test_resume_refuses_a_shard_that_changed_with_the_remedy(tmp_path: Path) -> None:
    run(tmp_path)
    said = (
        r"a\.json: was made from in/a\.tar, 10 bytes; now it is 11 bytes "
        r"\(of 3 shards, 1 changed\). Label those again with --mode retry-failed, all with --mode "
        r"overwrite, or choose another"
    )
    with pytest.raises(InputError, match=said), planned(tmp_path, "resume", (shard("a", 11), B, C)):
        pytest.fail("labels of two versions of a shard would meet")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 1}'])
def test_a_shard_with_a_damaged_marker_is_done_again(tmp_path: Path, content: str) -> None:
    run(tmp_path)
    (tmp_path / "b.json").write_text(content)
    for mode in ("resume", "retry-failed"):
        assert to_do(tmp_path, mode) == {"b"}


@pytest.mark.parametrize("lost", ["b.json", "b.parquet"])
def test_a_shard_without_its_file_or_its_marker_is_done_again(tmp_path: Path, lost: str) -> None:
    run(tmp_path)
    (tmp_path / lost).unlink()
    assert to_do(tmp_path, "resume") == {"b"}
    run(tmp_path)
    manifest = published(tmp_path)
    assert manifest.files["b.json"] == written((tmp_path / "b.json").read_bytes())
    assert manifest.files["b.parquet"] == written((tmp_path / "b.parquet").read_bytes())


def test_the_manifest_holds_every_file_of_every_shard(tmp_path: Path) -> None:
    run(tmp_path, shards=(A, B))
    run(tmp_path, shards=(C,))  # those of other shards stay
    manifest = published(tmp_path)
    assert manifest.shards == {"a": 1, "b": 1, "day1/c": 1}
    assert manifest.inputs == {at.name: at.identity for at in ALL}
    names = [f"{at.name}{extension}" for at in ALL for extension in (".json", ".parquet")]
    assert manifest.files == {name: written((tmp_path / name).read_bytes()) for name in names}


def test_an_overwritten_result_holds_only_what_was_asked_for(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, "overwrite", (A,))
    found = json.loads((tmp_path / "_manifest.json").read_text())
    assert set(found["files"]) == {"a.json", "a.parquet"}
    assert list(found["shards"]) == ["a"]
    assert not (tmp_path / "b.parquet").exists()


def test_what_retry_made_again_is_what_the_manifest_names(tmp_path: Path) -> None:
    label(Output(str(tmp_path), "dead"), B, BAD)
    run(tmp_path)
    plan = run(tmp_path, "retry-failed")
    assert plan.to_do == (B,)
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    assert manifest["shards"]["b"] == 1
    for name, file in manifest["files"].items():
        assert written((tmp_path / name).read_bytes()).sha256 == file["sha256"]


def test_a_shard_of_which_more_is_promised_by_now_is_refused_or_done_again(tmp_path: Path) -> None:
    run(tmp_path)
    said = r"a\.json: holds 1 rows, and 2 records are promised of the shard now \(of 1 shards"
    with (
        opened(str(tmp_path), "resume", LABELS, MADE_BY) as session,
        pytest.raises(InputError, match=said),
    ):
        Plan.of(session, {A: 2}, MADE_BY)
    with opened(str(tmp_path), "retry-failed", LABELS, MADE_BY) as session:
        assert Plan.of(session, {A: 2, B: 1}, MADE_BY).to_do == (A,)


def test_what_is_left_of_a_retry_of_more_shards_is_not_published(tmp_path: Path) -> None:
    """It was not accounted for, and may be half done."""
    for at in ALL:
        label(Output(str(tmp_path), "dead"), at, BAD)
    run(tmp_path)
    with planned(tmp_path, "retry-failed") as plan:
        for at in (A, B):
            label(plan.session.output, at)  # and killed before it publishes
    run(tmp_path, "retry-failed", (A,))
    for name, file in published(tmp_path).files.items():
        assert file.at is None
        assert written((tmp_path / name).read_bytes()).sha256 == file.sha256


def test_a_retry_names_the_marker_that_a_killed_run_had_made_anew(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text() + "\n")  # no manifest since
    run(tmp_path, "retry-failed")
    for name, file in published(tmp_path).files.items():
        assert written((tmp_path / name).read_bytes()).sha256 == file.sha256


def test_labels_of_another_output_below_are_no_part_of_this_one(tmp_path: Path) -> None:
    run(tmp_path / "day1", shards=(A,))
    run(tmp_path, shards=(B,))
    run(tmp_path, "overwrite", (A,))
    assert (tmp_path / "day1" / "a.parquet").exists()
    assert published(tmp_path / "day1").shards == {"a": 1}
    assert not (tmp_path / "b.parquet").exists()


def test_only_labels_are_strays(tmp_path: Path) -> None:
    run(tmp_path, shards=(A,))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "theirs.parquet").write_bytes(b"")
    assert LABELS.strays(str(tmp_path)) == {"a.json", "a.parquet"}
