import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.labels import LABELS
from pipelines.output import NEXT, Mode, Session, known_manifest, opened
from policy.errors import InputError, OutputInUse
from policy.manifest import LabelsManifest, WrittenFile, written
from policy.rows import LABELS_SCHEMA, OK, parquet_bytes
from transforms.done import commit_shard

OLD, NEW = {"policy": "p1"}, {"policy": "p2"}
STEPS = 60
"""More than the steps that any run here takes to become the result."""


class CrashError(Exception):
    """The machine lost power."""


def rows(made_by: Mapping[str, str], shard: str) -> bytes:
    says = {"made_by": dict(made_by), "input": shard}
    row = {"key": f"{shard}/0", "status": OK, "name": made_by["policy"]}
    return parquet_bytes([row], LABELS_SCHEMA, says)


def make(
    root: Path, made_by: Mapping[str, str], shards: str, mode: Mode = "resume"
) -> LabelsManifest:
    """Write these shards, one letter each, and publish them with those that stay."""
    with opened(str(root), mode, LABELS, made_by) as session:
        return publish(session, made_by, shards)


def publish(
    session: Session[LabelsManifest], made_by: Mapping[str, str], shards: str
) -> LabelsManifest:
    known = session.known if session.mode != "overwrite" else None
    files = dict(known.files) if known else {}
    made = {f"{shard}{extension}" for shard in shards for extension in (".json", ".parquet")}
    for shard in shards:
        says = {"made_by": dict(made_by), "input": shard}
        content = {f"{shard}.parquet": rows(made_by, shard)}
        commit_shard(session.output, f"{shard}.json", content, says, {})
        for name in (f"{shard}.parquet", f"{shard}.json"):
            files[name] = written(session.output.read(name, "it"))
    manifest = LabelsManifest(1, dict(made_by), dict.fromkeys(shards, 1), {}, files)
    session.publish(manifest, made)
    return manifest


def seen(root: Path) -> dict[str, bytes] | None:
    """The rows that a reader gets through the manifest, each file checked against it."""
    manifest = known_manifest(str(root), LABELS)
    if manifest is None:
        return None
    found = {}
    for name, file in manifest.files.items():
        content = (root / (file.at or name)).read_bytes()
        assert written(content) == WrittenFile(file.bytes, file.sha256)
        if name.endswith(".parquet"):
            found[name] = content
    return found


def result(made_by: Mapping[str, str], shards: str) -> dict[str, bytes]:
    return {f"{shard}.parquet": rows(made_by, shard) for shard in shards}


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


PLAIN = {"_manifest.json", "_run.json"}


def test_a_first_run_leaves_its_result_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, OLD, "ab")
    assert seen(tmp_path) == result(OLD, "ab")
    assert names(tmp_path) == PLAIN | {"a.json", "a.parquet", "b.json", "b.parquet"}
    assert json.loads((tmp_path / "_run.json").read_text())["made_by"] == OLD


def test_resume_adds_and_publishing_the_same_again_writes_nothing(tmp_path: Path) -> None:
    make(tmp_path, OLD, "a")
    manifest = make(tmp_path, OLD, "b")
    assert seen(tmp_path) == result(OLD, "ab")
    before = (tmp_path / "_manifest.json").stat().st_ino
    with opened(str(tmp_path), "resume", LABELS, OLD) as session:
        session.publish(manifest, ())
    assert (tmp_path / "_manifest.json").stat().st_ino == before


@pytest.mark.parametrize("mode", ["resume", "retry-failed"])
def test_another_making_is_refused_and_named_and_nothing_changes(
    tmp_path: Path, mode: Mode
) -> None:
    make(tmp_path, OLD, "a")
    before = names(tmp_path)
    said = r"was made with policy p1, this run has p2; choose another --output, or .*overwrite"
    with pytest.raises(InputError, match=said):
        make(tmp_path, NEW, "a", mode)
    assert (names(tmp_path), seen(tmp_path)) == (before, result(OLD, "a"))


def test_a_setting_that_only_one_of_both_has_is_named(tmp_path: Path) -> None:
    make(tmp_path, OLD, "a")
    with pytest.raises(InputError, match=r"was made with --topk None, this run has 5"):
        make(tmp_path, {**OLD, "--topk": "5"}, "b")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"made_by": 1}', '{"version": 1}'])
def test_what_does_not_say_what_it_was_made_by_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "_run.json").write_text(content)
    with pytest.raises(InputError, match=r"_run\.json"):
        make(tmp_path, OLD, "a")
    assert names(tmp_path) == {"_run.json"}


def test_a_run_of_an_older_version_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "_run.json").write_text('{"policy": "p1"}')
    with pytest.raises(InputError, match=r"before version 0\.2, choose another --output"):
        make(tmp_path, OLD, "a")


def test_overwrite_replaces_all_and_removes_what_is_no_part_of_it(tmp_path: Path) -> None:
    make(tmp_path, OLD, "abc")
    make(tmp_path, NEW, "ab", "overwrite")
    assert seen(tmp_path) == result(NEW, "ab")
    assert names(tmp_path) == PLAIN | {"a.json", "a.parquet", "b.json", "b.parquet"}
    assert not (tmp_path / NEXT).exists()
    make(tmp_path, NEW, "c")  # what it is made by was overwritten, too


def test_overwrite_of_nothing_is_a_first_run(tmp_path: Path) -> None:
    make(tmp_path / "out", NEW, "a", "overwrite")
    assert seen(tmp_path / "out") == result(NEW, "a")


def test_overwrite_never_deletes_what_others_keep_there(tmp_path: Path) -> None:
    make(tmp_path, OLD, "ab")
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/table.parquet").write_bytes(b"theirs")
    (tmp_path / "README").write_text("mine")
    make(tmp_path, NEW, "a", "overwrite")
    assert {"notes.json", "sub/table.parquet", "README"} <= names(tmp_path)
    assert "b.parquet" not in names(tmp_path)


def test_retry_keeps_the_shards_it_does_not_make_again(tmp_path: Path) -> None:
    make(tmp_path, OLD, "abc")
    inode = (tmp_path / "a.parquet").stat().st_ino
    make(tmp_path, OLD, "b", "retry-failed")
    assert seen(tmp_path) == result(OLD, "abc")
    assert (tmp_path / "a.parquet").stat().st_ino == inode
    assert not (tmp_path / NEXT).exists()


def test_an_overwrite_that_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    make(tmp_path, OLD, "ab")
    stopped = pytest.raises(CrashError)
    with stopped, opened(str(tmp_path), "overwrite", LABELS, NEW) as session:
        session.output.create("a.parquet", rows(NEW, "a"))
        raise CrashError
    assert seen(tmp_path) == result(OLD, "ab")
    with opened(str(tmp_path), "overwrite", LABELS, NEW) as session:
        assert session.output.read("a.parquet", "it") == rows(NEW, "a")


def test_what_another_overwrite_had_begun_is_thrown_away(tmp_path: Path) -> None:
    make(tmp_path, OLD, "a")
    stopped = pytest.raises(CrashError)
    with stopped, opened(str(tmp_path), "overwrite", LABELS, NEW) as session:
        session.output.create("a.parquet", rows(NEW, "a"))
        raise CrashError
    with opened(str(tmp_path), "overwrite", LABELS, {"policy": "p3"}):
        assert not (tmp_path / NEXT / "a.parquet").exists()


def test_a_result_that_a_resume_finds_in_the_making_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, OLD, "a")
    stopped = pytest.raises(CrashError)
    with stopped, opened(str(tmp_path), "overwrite", LABELS, NEW) as session:
        session.output.create("a.parquet", rows(NEW, "a"))
        raise CrashError
    make(tmp_path, OLD, "b")
    assert seen(tmp_path) == result(OLD, "ab")
    assert (tmp_path / NEXT / "a.parquet").exists()


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise CrashError instead of the n-th change of a file's name, and of all after it."""
    done: list[str] = []

    def crashing(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            done.append(name)
            if len(done) >= step:
                raise CrashError(name)
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "link", "unlink", "rmdir", "mkdir"):
        crashing(name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["overwrite", "retry-failed"])
def test_whatever_step_fails_a_reader_has_the_old_or_the_new_and_the_next_run_ends_it(
    tmp_path: Path, mode: Mode
) -> None:
    wanted = NEW if mode == "overwrite" else OLD
    shards = "ab" if mode == "overwrite" else "abc"
    crashed = 0
    for step in range(1, STEPS):
        root = tmp_path / str(step)
        make(root, OLD, "abc")
        with pytest.MonkeyPatch.context() as patch:
            crash_at(step, patch)
            with suppress(CrashError):
                make(root, wanted, "ab", mode)
                break
        crashed += 1
        assert seen(root) in (result(OLD, "abc"), result(wanted, shards))
        make(root, wanted, "ab", mode)
        assert seen(root) == result(wanted, shards)
        assert {name[0] for name in names(root)} == {"_", *shards}
        assert not (root / NEXT).exists()
    assert 20 < crashed < STEPS - 1


@pytest.mark.parametrize("step", range(1, STEPS, 7))
def test_any_run_after_it_first_ends_what_was_stopped(tmp_path: Path, step: int) -> None:
    make(tmp_path, OLD, "abc")
    with pytest.MonkeyPatch.context() as patch:
        crash_at(step, patch)
        with suppress(CrashError):
            make(tmp_path, NEW, "ab", "overwrite")
    now = seen(tmp_path)
    current = NEW if now == result(NEW, "ab") else OLD
    with opened(str(tmp_path), "resume", LABELS, current) as session:
        assert session.known is not None
        assert not any(file.at for file in session.known.files.values())
    assert seen(tmp_path) == now


def test_an_output_is_held_for_as_long_as_the_body_runs(tmp_path: Path) -> None:
    with opened(str(tmp_path), "resume", LABELS, OLD):
        refused = pytest.raises(OutputInUse, match="writes to this output")
        with refused, opened(str(tmp_path), "overwrite", LABELS, NEW):
            pytest.fail("held by two")
    with opened(str(tmp_path), "resume", LABELS, OLD):
        pass


def test_a_refused_first_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CrashError), opened(str(tmp_path / "out"), "resume", LABELS, None):
        raise CrashError
    assert not (tmp_path / "out").exists()
