"""Nights and the alarm: evidence goes on from night to night, and a refuted policy is not used."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_images
from nights import Nights

from launch.runners import preset
from pipelines import alarms, classify, explain_nightly, nightly, policy_rollback
from pipelines.promise import table_of
from policy.alarm import THRESHOLD, Audits, verdict
from policy.bundle import read_bundle, write_bundle
from policy.nights import NightRecord
from policy.rules import always
from transforms import watch


@pytest.fixture(autouse=True)
def _look_at_every_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_LOOKING_SHARE", 0)  # or looks that are slow are few


@pytest.fixture
def nights(world: Any, tmp_path: Path) -> Nights:
    """A policy in use that promises what it does not keep; every image is audited."""
    bundle = read_bundle(world.policy)
    write_bundle(
        str(tmp_path / "bent"), replace(bundle, policy=always(bundle.policy.graph, "small"))
    )
    found = Nights(tmp_path / "job")
    job(found, world, "stop")
    found.publish(str(tmp_path / "bent"))
    return found


def job(nights: Nights, world: Any, on_alarm: str) -> None:
    nights.write_job(world.networks, f'[audit]\nfraction = 1.0\non-alarm = "{on_alarm}"\n')


def shards(nights: Nights, *names: str) -> None:
    for name in names:
        rng = np.random.default_rng(int(name[1:]))
        nights.shard(name, [tiny_images.tinted(rng) for _ in range(40)])


def night(nights: Nights) -> tuple[int, NightRecord]:
    receipt = nights.night()
    return receipt.exit_code, receipt.nights[-1]


def test_evidence_of_several_nights_raises_an_alarm_that_none_of_them_would(
    nights: Nights,
) -> None:
    reference = read_bundle(str(nights.folder.parent / "bent")).evidence.reference
    table, rng, found = table_of(reference), np.random.default_rng(0), []
    images = [tiny_images.tinted(rng) for _ in range(16)]  # a little worse than promised
    while not found or (found[-1].exit_code == 0 and len(found) < 20):
        nights.shard(f"n{len(found):02d}", images)
        code, record = night(nights)
        assert code == record.exit_code
        found.append(record)
    assert len(found) > 2
    assert found[-1].exit_code == 6
    audits = [Audits(record.audited, record.disagreed) for record in found]
    assert max(verdict(table, [alone]).highest for alone in audits) < THRESHOLD
    together = verdict(table, audits[-1:], tuple(audits[:-1]))
    assert together.alarm
    assert not verdict(table, audits[-2:-1], tuple(audits[:-2])).alarm
    assert (together.nights, together.highest) == (len(found), found[-1].evidence)
    assert [record.alarm for record in found[:-1]] == [None] * (len(found) - 1)
    total = together.total
    said = rf"{total.disagreed} of {total.audited} audited images \(.*\) of the last {len(found)} n"
    assert re.match(said, found[-1].alarm or "")
    assert f"ALARM: {found[-1].alarm}" in nights.log()[-1]


def test_a_policy_with_an_alarm_is_used_again_only_where_the_job_says_so(
    nights: Nights, world: Any
) -> None:
    shards(nights, *(f"n{number:02d}" for number in range(6)))
    code, record = night(nights)
    done = record.shards
    assert (code, record.waiting + done) == (6, 6)
    assert 0 < done < 6
    assert "not begun" in record.line()
    labelled = nights.rows()
    assert len(labelled) == 40 * done

    code, record = night(nights)
    assert (code, record.night) == (6, None)
    assert re.search(
        rf"policy 1 is not used any more, since an alarm stands against it: .*\. {6 - done} shards "
        r"wait for another policy \(adalabel refit, or .* \"warn\" in the job$",
        record.message,
    )
    assert nights.rows() == labelled
    options = nightly.NightlyOptions(job=str(nights.folder / "job.toml"), dry_run=True)
    told = explain_nightly.run(options, preset(options.runner)).todo
    assert (told.shards, told.refused) == (6 - done, record.message)

    job(nights, world, "full")
    code, record = night(nights)
    assert (code, record.shards) == (6, 6 - done)
    assert len(nights.rows()) == 240
    by_trail = [row for row in nights.rows() if row["trail"] == ["big"]]
    assert len(by_trail) == 40 * (6 - done)
    shards(nights, "n06")
    job(nights, world, "warn")
    code, record = night(nights)
    assert (code, record.shards, record.audited) == (6, 1, 40)
    assert len([row for row in nights.rows() if row["trail"] == ["small"]]) == 40 * (done + 1)


def test_another_policy_ends_the_alarm_and_the_first_one_back_brings_it_back(
    nights: Nights, world: Any
) -> None:
    shards(nights, *(f"n{number:02d}" for number in range(6)))
    _, first = night(nights)
    nights.publish(world.policy)
    code, record = night(nights)
    assert (code, record.policy_version, record.shards) == (0, 2, 6 - first.shards)
    assert len(nights.rows()) == 240
    policy_rollback.run(policy_rollback.RollbackOptions(registry=str(nights.folder / "policies")))
    shards(nights, "n04")
    code, record = night(nights)
    assert (code, record.shards) == (6, 0)
    assert len(nights.rows()) == 240


@pytest.fixture
def killed(nights: Nights) -> Nights:
    """A night of six shards, killed when its alarm has stopped it and before it publishes."""
    shards(nights, *(f"n{number:02d}" for number in range(6)))

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "_publish", kill)
        with pytest.raises(KeyboardInterrupt):
            nights.night()
    return nights


def test_a_night_that_is_killed_after_its_alarm_publishes_what_it_has_labelled(
    killed: Nights, world: Any
) -> None:
    (folder,) = (killed.folder / "labels/nights").iterdir()
    labelled = len(list(folder.glob("*.parquet")))
    assert 0 < labelled < 6
    receipt = killed.night()
    record, waits = receipt.nights
    assert (receipt.exit_code, record.shards, record.waiting) == (6, labelled, 6 - labelled)
    assert record.alarm
    assert f"{6 - labelled} shards wait for another policy" in waits.message
    assert len(killed.rows()) == 40 * labelled
    code, record = night(killed)
    assert (code, record.shards) == (6, 0)
    killed.publish(world.policy)
    (record,) = killed.night().nights
    assert (record.exit_code, record.policy_version, record.shards) == (0, 2, 6 - labelled)
    assert len(killed.rows()) == 240


def test_a_night_that_was_stopped_under_an_alarm_is_given_up_for_another_policy(
    killed: Nights, world: Any
) -> None:
    killed.publish(world.policy)
    given_up, record = killed.night().nights
    assert "policy 1 is not in use any more, and an alarm stands against it" in given_up.message
    assert (record.exit_code, record.policy_version, record.shards) == (0, 2, 6)
    assert len(killed.rows()) == 240
