import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_policies

from policy.bundle import Bundle
from policy.errors import Damaged, InputError
from policy.registry import (
    Action,
    Entry,
    Version,
    current_of,
    digest_of,
    entries_of,
    find,
    predecessor,
    version_of,
    versions_of,
    was_current,
    why_not_promoted,
)
from policy.schema import to_json

BUNDLE = tiny_policies.bundle(0.6)


def version(number: int, bundle: Bundle = BUNDLE) -> Version:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return version_of(bundle, number, digest, "2026-11-21T00:00:00+00:00")


def history(*steps: tuple[Action, int]) -> tuple[Entry, ...]:
    """A history of these actions; `publish` does not promote, the others do."""
    entries: list[Entry] = []
    for action, number in steps:
        current = current_of(entries) if action == "publish" else version(number)
        before = hashlib.sha256(to_json(entries[-1]).encode()).hexdigest() if entries else None
        step = len(entries) + 1
        entries.append(
            Entry(
                version=1,
                step=step,
                action=action,
                subject=version(number),
                current=current,
                forced=False,
                why="",
                by="ann",
                run="host.1.x",
                when="2026-11-21T00:00:00+00:00",
                before=before,
            )
        )
    return tuple(entries)


def contents(entries: tuple[Entry, ...]) -> list[bytes]:
    return [to_json(entry).encode() for entry in entries]


def test_the_address_is_what_sha256sum_prints(tmp_path: Path) -> None:
    files = {"policy.json": b"{}", "heads.safetensors": b"\x00", "report.html": b"<p>"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = ["/bin/sh", "-c", "sha256sum * | sha256sum"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().split()[0] == digest_of(files)


@pytest.mark.parametrize("change", ["policy.json", "report.html", "more"])
def test_any_change_of_any_file_is_another_address(change: str) -> None:
    files = {"policy.json": b"{}", "report.html": b"<p>"}
    assert digest_of(files | {change: b"changed"}) != digest_of(files)


def test_a_version_says_what_the_evidence_does() -> None:
    found = version(3)
    assert (found.promise, found.method, found.metric) == (
        "top1 excess at most 0.01",
        "dag",
        "top1",
    )
    assert (found.cost, found.full_cost, found.unit) == (3.25, 9.5, "ms")
    assert found.policy == BUNDLE.digest
    assert found.blessed
    assert "certified at 95% confidence on 400 images" in found.proof


def test_a_version_without_evidence_has_no_promise() -> None:
    found = version(1, replace(BUNDLE, evidence=None))
    assert (found.promise, found.metric, found.cost, found.blessed) == (None, None, None, False)


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (None, "it has no certificate; fit it with --max-loss and --confidence 0.95"),
        (
            replace(tiny_policies.CERTIFICATE, passed=False),
            "its certificate proves no policy (always the full network: none of 3 policies",
        ),
    ],
)
def test_only_a_proved_policy_may_become_current(certificate: object, said: str) -> None:
    found = version(1, tiny_policies.bundle(0.6, certificate))  # type: ignore[arg-type]
    assert not found.blessed
    assert (why_not_promoted(found, ()) or "").startswith(said)
    assert why_not_promoted(version(1), ()) is None


def test_what_is_older_than_current_may_not_become_current() -> None:
    entries = history(("publish", 1), ("promote", 2))
    said = "it is older than CURRENT, version 2 (sha256 "
    assert (why_not_promoted(version(1), entries) or "").startswith(said)
    assert why_not_promoted(version(3), entries) is None


def test_what_was_current_and_was_rolled_back_may_not_become_current() -> None:
    entries = history(("promote", 1), ("promote", 2), ("rollback", 1))
    assert why_not_promoted(version(2), entries) is not None
    assert was_current(entries) == {1, 2}


def test_a_history_reads_back_equal() -> None:
    entries = history(("publish", 1), ("promote", 1), ("promote", 2))
    assert entries_of(contents(entries), "r") == entries
    assert [v.number for v in versions_of(entries)] == [1, 2]
    assert (current_of(()), versions_of(()), predecessor(())) == (None, (), None)


@pytest.mark.parametrize("change", ["text", "order", "gap", "step"])
def test_a_history_that_was_changed_is_noticed(change: str) -> None:
    entries = history(("promote", 1), ("promote", 2), ("promote", 3))
    found = contents(entries)
    if change == "text":
        found[0] = found[0].replace(b"ann", b"bob")
    elif change == "order":
        found[1], found[2] = found[2], found[1]
    elif change == "gap":
        del found[1]
    else:
        found[2] = to_json(replace(entries[2], step=4)).encode()
    with pytest.raises(Damaged, match=r"r: step [23] does not follow the step before it"):
        entries_of(found, "r")


def test_half_a_step_is_damage_and_says_what_to_do() -> None:
    with pytest.raises(Damaged, match=r"r, step 1: not valid JSON: .*Restore the file from a copy"):
        entries_of([contents(history(("promote", 1)))[0][:40]], "r")


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([("promote", 1)], None),
        ([("promote", 1), ("promote", 2)], 1),
        ([("promote", 1), ("publish", 2), ("promote", 3), ("publish", 4)], 1),
        ([("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2)], 1),
        ([("promote", 1), ("promote", 2), ("rollback", 1)], None),
        ([("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 3)], 1),
        ([("promote", 1), ("promote", 2), ("promote", 1)], 2),
        ([("promote", 1), ("promote", 2), ("rollback", 1), ("rollback", 2)], 1),
    ],
)
def test_going_back_follows_what_took_the_place_of_what(
    steps: list[tuple[Action, int]], wanted: int | None
) -> None:
    found = predecessor(history(*steps))
    assert (found and found.number) == wanted


def test_a_version_is_found_by_number_digest_and_current() -> None:
    versions = tuple(version(number) for number in (1, 2, 3))
    second = versions[1]
    for named in ("2", second.digest, second.digest[:6], "CURRENT"):
        assert find(versions, named, second, "r") == second


@pytest.mark.parametrize("named", ["4", "abc", "", "g" * 12, "current", "-1", "²"])
def test_a_version_that_is_not_there_is_refused_with_the_last_ones(named: str) -> None:
    versions = tuple(version(number) for number in range(1, 4))
    with pytest.raises(InputError, match=r"r: 0 versions are called .*The last are: 1 \(sha256"):
        find(versions, named, None, "r")


def test_the_first_digits_of_two_versions_name_neither() -> None:
    one = version(1)
    two = replace(version(2), digest=one.digest[:8] + version(2).digest[8:])
    with pytest.raises(InputError, match="2 versions are called"):
        find((one, two), one.digest[:8], None, "r")


def test_nothing_is_current_before_anything_was_promoted() -> None:
    with pytest.raises(InputError, match="r: no policy was promoted there, so nothing is CURRENT"):
        find((version(1),), "CURRENT", None, "r")
