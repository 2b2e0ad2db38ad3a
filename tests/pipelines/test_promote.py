import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_policies
from tiny_bucket import TinyBlob, TinyBucket

from pipelines import promote
from pipelines.promote import Outcome, Wish, publish, rollback
from pipelines.registry import Registry, open_registry
from policy.bundle import HEADS, POLICY, REPORT, read_bundle
from policy.errors import Damaged, InputError, OutputInUse
from transforms import bucket
from transforms.chain import POINTER

FORK = multiprocessing.get_context("fork")
UNPROVED = replace(tiny_policies.CERTIFICATE, passed=False)
Put = Callable[[str, bytes], None]


@pytest.fixture(params=["local", "gs"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """An empty registry; all that is said of it must hold of both kinds."""
    if request.param == "local":
        return open_registry(f"{tmp_path}/registry/")
    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    return open_registry("gs://shelf/policies")


@pytest.fixture
def put(registry: Registry) -> Put:
    """Changes a file of the registry by hand."""

    def put(name: str, content: bytes) -> None:
        if registry.root.startswith("gs://"):
            bucket.replace(f"{registry.root}/{name}", content)
        else:
            (Path(registry.root) / name).write_bytes(content)

    return put


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., str]:
    """Makes a policy's folder for a cut."""
    return lambda cut, *certificate: tiny_policies.write(tmp_path / f"p{cut}", cut, *certificate)


def numbers(registry: Registry) -> list[tuple[str, int, int | None, bool]]:
    """What the history says: action, its version, CURRENT after it, forced."""
    return [
        (step.action, step.subject.number, step.current and step.current.number, step.forced)
        for step in registry.history()
    ]


def test_an_empty_registry_has_nothing(registry: Registry) -> None:
    assert registry.is_empty()
    assert (registry.current(), registry.versions(), registry.history()) == (None, (), ())


def test_a_proved_policy_becomes_current_and_reads_back_equal(
    registry: Registry, made: Callable[..., str]
) -> None:
    folder = made(0.6)
    outcome = publish(registry, folder, Wish(why="the first one"))
    version = outcome.version
    assert (outcome.promoted, outcome.forced, outcome.before) == (True, False, None)
    assert registry.current() == version == registry.find("CURRENT")
    assert version.folder == f"{registry.root}/bundles/{version.digest}"
    found, wanted = registry.read(version), read_bundle(folder)
    assert replace(found, heads={}) == replace(wanted, heads={})
    assert registry.files(version).keys() == {POLICY, HEADS, REPORT}
    (step,) = registry.history()
    assert (step.action, step.why, step.before) == ("publish", "the first one", None)
    assert step.by
    assert step.run


def test_publishing_twice_changes_nothing(registry: Registry, made: Callable[..., str]) -> None:
    first = publish(registry, made(0.6), Wish())
    again = publish(registry, made(0.6), Wish())
    assert again.version == first.version == again.before
    assert again.promoted
    assert len(registry.history()) == 1


def test_versions_are_numbered_as_they_come(registry: Registry, made: Callable[..., str]) -> None:
    for cut in (0.5, 0.6, 0.7):
        publish(registry, made(cut), Wish())
    assert [version.number for version in registry.versions()] == [1, 2, 3]
    assert len({version.digest for version in registry.versions()}) == 3
    assert numbers(registry) == [("publish", n, n, False) for n in (1, 2, 3)]


@pytest.mark.parametrize("certificate", [None, UNPROVED])
def test_an_unproved_policy_is_stored_and_not_promoted(
    registry: Registry, made: Callable[..., str], certificate: object
) -> None:
    publish(registry, made(0.6), Wish())
    outcome = publish(registry, made(0.7, certificate), Wish())
    assert not outcome.promoted
    assert re.search("no certificate|proves no policy", outcome.refused or "")
    assert [version.number for version in registry.versions()] == [1, 2]
    assert registry.current() == registry.find("1")
    assert registry.read(outcome.version).evidence is not None
    publish(registry, made(0.7, certificate), Wish())  # again: it is there already
    assert len(registry.history()) == 2


def test_by_force_an_unproved_policy_is_promoted_and_the_history_says_so(
    registry: Registry, made: Callable[..., str]
) -> None:
    folder = made(0.6, None)
    publish(registry, folder, Wish())
    outcome = publish(registry, folder, Wish(force=True, why="demo day"))
    assert (outcome.promoted, outcome.forced) == (True, True)
    assert numbers(registry) == [("publish", 1, None, False), ("promote", 1, 1, True)]
    assert re.fullmatch(
        "forced, although it has no certificate; .*; demo day", registry.history()[1].why
    )


def test_force_where_none_is_needed_is_not_called_force(
    registry: Registry, made: Callable[..., str]
) -> None:
    assert not publish(registry, made(0.6), Wish(force=True)).forced
    assert numbers(registry) == [("publish", 1, 1, False)]


def test_an_older_version_becomes_current_by_force_only(
    registry: Registry, made: Callable[..., str]
) -> None:
    publish(registry, made(0.6), Wish())
    publish(registry, made(0.7), Wish())
    refused = publish(registry, made(0.6), Wish())
    assert "it is older than CURRENT, version 2" in (refused.refused or "")
    assert registry.current() == registry.find("2")
    assert publish(registry, made(0.6), Wish(force=True)).forced
    assert registry.current() == registry.find("1")


def test_what_is_only_to_be_stored_moves_nothing(
    registry: Registry, made: Callable[..., str]
) -> None:
    outcome = publish(registry, made(0.6), Wish(promote=False))
    assert (outcome.promoted, outcome.refused, registry.current()) == (False, None, None)
    promoted = publish(registry, outcome.version.folder, Wish()) if is_local(registry) else None
    assert promoted is None or promoted.promoted  # from the registry's own folder


def is_local(registry: Registry) -> bool:
    return "://" not in registry.root


def test_rolling_back_goes_to_the_predecessor_and_keeps_the_history(
    registry: Registry, made: Callable[..., str]
) -> None:
    for cut in (0.5, 0.6, 0.7):
        publish(registry, made(cut), Wish())
    outcome = rollback(registry, None, "too many alarms")
    assert (outcome.version.number, outcome.before and outcome.before.number) == (2, 3)
    assert rollback(registry, None, "").version.number == 1
    assert numbers(registry)[3:] == [("rollback", 2, 2, False), ("rollback", 1, 1, False)]
    assert registry.history()[3].why == "too many alarms"
    with pytest.raises(InputError, match="nothing was CURRENT before what is CURRENT now; publish"):
        rollback(registry, None, "")


def test_rolling_back_to_a_version_that_is_named(
    registry: Registry, made: Callable[..., str]
) -> None:
    for cut in (0.5, 0.6, 0.7):
        publish(registry, made(cut), Wish())
    first = registry.find("1")
    assert rollback(registry, first.digest[:8], "").version == first == registry.current()
    steps = len(registry.history())
    again = rollback(registry, "1", "")  # asked for twice, by a scheduler that tries again
    assert (again.version, again.before, len(registry.history())) == (first, first, steps)
    assert rollback(registry, "3", "").version.number == 3  # it was CURRENT, so it may be again


def test_there_is_no_rolling_back_to_what_never_was_current(
    registry: Registry, made: Callable[..., str]
) -> None:
    publish(registry, made(0.5), Wish())
    publish(registry, made(0.6), Wish(promote=False))
    with pytest.raises(InputError, match=r"2 \(.*\) never was CURRENT.*promote it with .*publish"):
        rollback(registry, "2", "")


@pytest.mark.parametrize("name", [POLICY, HEADS, REPORT])
def test_a_bundle_that_was_changed_is_refused(
    registry: Registry, made: Callable[..., str], put: Put, name: str
) -> None:
    version = publish(registry, made(0.5), Wish()).version
    publish(registry, made(0.6), Wish())
    content = registry.files(version)[name]
    put(f"bundles/{version.digest}/{name}", content + b" ")
    said = r"bundles/\w+: .* there is not what was published as version 1; .* publish the same"
    with pytest.raises(Damaged, match=said):
        registry.read(version)
    with pytest.raises(Damaged, match=said):
        rollback(registry, None, "")
    with pytest.raises(Damaged, match=said):
        publish(registry, made(0.5), Wish(force=True))
    assert registry.current() == registry.find("2")


def test_a_file_more_in_a_bundle_is_another_bundle(
    registry: Registry, tmp_path: Path, put: Put
) -> None:
    folder = Path(tiny_policies.write(tmp_path / "p", 0.5))
    (folder / REPORT).unlink()
    version = publish(registry, str(folder), Wish()).version
    put(f"bundles/{version.digest}/{REPORT}", b"<p>other")
    with pytest.raises(Damaged):
        registry.read(version)


def test_a_history_with_a_gap_is_damage(
    registry: Registry, made: Callable[..., str], put: Put
) -> None:
    publish(registry, made(0.5), Wish())
    publish(registry, made(0.6), Wish())
    if is_local(registry):
        (Path(registry.root) / "history/00000001.json").unlink()
    else:
        bucket.delete(f"{registry.root}/history/00000001.json")
    with pytest.raises(Damaged, match=r"history/00000001.json: is missing; restore it"):
        registry.history()
    assert registry.current() is not None  # what is needed to label is there
    put("history/00000001.json", b"{}")
    with pytest.raises(Damaged, match=r"step 1: .*Restore the file"):
        registry.versions()


def test_who_finds_that_current_was_moved_meanwhile_is_told(
    registry: Registry, made: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, made(0.5), Wish())
    current = registry.current()
    publish(registry, made(0.6), Wish())
    monkeypatch.setattr(Registry, "current", lambda _: current)  # what they saw at their start
    said = "another run moved CURRENT meanwhile: it is version 2 .* now. Look at it"
    with pytest.raises(OutputInUse, match=said):
        publish(registry, made(0.7), Wish())
    with pytest.raises(OutputInUse, match=said):
        rollback(registry, None, "")
    assert not publish(registry, made(0.7), Wish(promote=False)).promoted  # moves nothing


def test_who_never_gets_a_step_gives_up(
    registry: Registry, made: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, made(0.5), Wish())
    publish(registry, made(0.6), Wish())
    monkeypatch.setattr(promote, "_step", lambda *_: False)
    for attempt in (
        lambda: publish(registry, made(0.7), Wish()),
        lambda: rollback(registry, None, ""),
    ):
        with pytest.raises(OutputInUse, match="others took 100 steps before this run could"):
            attempt()


def test_a_place_without_conditional_writes_is_no_registry() -> None:
    with pytest.raises(InputError, match="s3://shelf/policies: no place for a registry"):
        open_registry("s3://shelf/policies")


def test_a_user_without_a_name_is_a_number(
    made: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    registry = open_registry(str(tmp_path / "r"))
    publish(registry, made(0.6), Wish())
    assert registry.history()[0].by == f"user {os.getuid()}"


def contend(root: str, folder: str, start: object, wish: Wish, ends: object) -> None:
    start.wait(60)
    try:
        outcome = publish(open_registry(root), folder, wish)
        ends.put(("done", outcome.version.number))
    except OutputInUse as error:
        ends.put(("told", str(error)))


def race(root: str, folders: list[str], wish: Wish) -> list[tuple[str, object]]:
    """What came of publishing all of these at once, each in a process of its own."""
    start, ends = FORK.Barrier(len(folders)), FORK.Queue()
    runs = [
        FORK.Process(target=contend, args=(root, folder, start, wish, ends)) for folder in folders
    ]
    for run in runs:
        run.start()
    found = [ends.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * len(runs)
    return found


def test_of_many_who_publish_at_once_none_loses_anothers_move(
    tmp_path: Path, made: Callable[..., str]
) -> None:
    root, folders = str(tmp_path / "registry"), [made(cut / 10) for cut in range(1, 7)]
    publish(open_registry(root), made(0.05), Wish())
    found = race(root, folders, Wish())
    registry = open_registry(root)
    won = sorted(number for end, number in found if end == "done")
    promoted = [step.current.number for step in registry.history() if step.current]
    assert promoted == [1, *won]  # each move that was reported stands, and no other
    assert registry.current() == registry.find(str(([1, *won])[-1]))
    assert json.loads((tmp_path / "registry" / POINTER).read_text())["step"] == len(promoted)
    assert not (tmp_path / "registry" / "_attempts").exists()


def test_of_many_who_only_store_at_once_all_are_stored(
    tmp_path: Path, made: Callable[..., str]
) -> None:
    root, folders = str(tmp_path / "registry"), [made(cut / 10) for cut in range(1, 7)]
    found = race(root, folders, Wish(promote=False))
    assert sorted(found) == [("done", number) for number in range(1, 7)]
    assert len(open_registry(root).versions()) == 6


class Killed(BaseException):
    """Ends a process as nothing else would."""


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """A bucket whose writer is killed at its n-th writing from now on, before it or after it."""
    left: list[int | bool] = [-1, False]
    upload = TinyBlob.upload_from_string

    def killed(self: TinyBlob, content: bytes, **how: object) -> None:
        left[0] -= 1
        if left[0] == 0 and not left[1]:
            raise Killed
        upload(self, content, **how)  # type: ignore[arg-type]
        if left[0] == 0:
            raise Killed

    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    monkeypatch.setattr(TinyBlob, "upload_from_string", killed)

    def arm(at: int, after: bool) -> None:  # noqa: FBT001
        left[:] = [at, after]

    return arm


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 6))  # three files, the step, the pointer
def test_in_a_bucket_whoever_is_killed_at_a_write_leaves_the_old_current_or_the_new(
    mortal: Callable[[int, bool], None],
    made: Callable[..., str],
    at: int,
    after: bool,  # noqa: FBT001
) -> None:
    registry = open_registry("gs://shelf/policies")
    old = publish(registry, made(0.5), Wish()).version
    mortal(at, after)
    with pytest.raises(Killed):
        publish(registry, made(0.6), Wish())
    mortal(-1, after)
    found = registry.current()
    assert found is not None
    assert found.number == (2 if (at, after) >= (4, True) else 1)
    assert registry.read(found).digest == found.policy
    outcome = publish(registry, made(0.6), Wish())
    assert (outcome.promoted, outcome.version.number) == (True, 2)
    assert numbers(registry) == [("publish", 1, 1, False), ("publish", 2, 2, False)]
    assert rollback(registry, None, "").version == old


def test_the_steps_name_the_ones_before_them(made: Callable[..., str], tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "r"))
    for cut in (0.5, 0.6):
        publish(registry, made(cut), Wish())
    first = (tmp_path / "r/history/00000001.json").read_bytes()
    assert registry.history()[1].before == hashlib.sha256(first).hexdigest()


def test_what_a_dead_publisher_left_is_removed(made: Callable[..., str], tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "r"))
    outcome: Outcome = publish(registry, made(0.5), Wish())
    assert outcome.promoted
    process = FORK.Process(target=lambda: None)
    process.start()
    process.join()
    dead = tmp_path / "r/_attempts" / f"{promote.name_of_run().split('.')[0]}.{process.pid}.x"
    dead.mkdir(parents=True)
    (dead / "half").write_bytes(b"{")
    publish(registry, made(0.6), Wish())
    assert not (tmp_path / "r/_attempts").exists()
