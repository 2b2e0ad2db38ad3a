"""Nights: what is new is labelled once, by the policy in use, whatever goes wrong in between."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_images
from nights import Nights

from launch.cli import main
from launch.runners import preset
from pipelines import classify, explain_nightly, night_run, nightly
from pipelines.claim import claimed
from pipelines.dry_run import DryRun
from pipelines.labels import LABELS
from pipelines.output import Mode, looked_at
from pipelines.places import Runner
from policy.errors import InputError, OutputInUse
from transforms.commit import Output
from transforms.shards import image_files

RNG = np.random.default_rng(5)
Changed = Callable[..., None]


def images(n: int = 6) -> list[bytes]:
    return [tiny_images.tinted(RNG) for _ in range(n)]


@pytest.fixture
def nights(world: Any, tmp_path: Path) -> Nights:
    """Two shards of six images, and a policy in use."""
    found = Nights(tmp_path / "job")
    found.write_job(world.networks)
    found.publish(world.policy)
    for name in ("a", "b"):
        found.shard(name, images())
    return found


@pytest.fixture
def other_policy(world: Any, tmp_path: Path) -> str:
    """A policy that always gets the full network."""
    world.fit(table=world.table, policy=str(tmp_path / "other"), max_loss=0.0)
    return str(tmp_path / "other")


def test_a_night_elsewhere_whose_workers_could_not_see_the_shards_is_refused(
    world: Any, tmp_path: Path
) -> None:
    nights = Nights(tmp_path / "far")
    nights.write_job(world.networks, 'on = "dataflow"\n')
    nights.publish(world.policy)
    nights.shard("a", images())
    receipt = nightly.run(
        nightly.NightlyOptions(job=str(nights.folder / "job.toml")), preset(Runner("local", 1))
    )
    assert (receipt.exit_code, receipt.records) == (2, 0)
    assert "is a path of this machine, which no worker sees" in receipt.nights[-1].message


def labelled(nights: Nights) -> dict[str, int]:
    """Rows by shard; every key once."""
    keys = [row["key"] for row in nights.rows()]
    assert len(set(keys)) == len(keys)
    return dict(Counter(key.partition("/")[0] for key in keys))


def stopped_once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Make a function fail as a killed process would: what follows does not happen."""

    def killed(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(where, name, killed)


def files_of(nights: Nights) -> dict[str, int]:
    """All files of labels, with when each was written."""
    return {
        str(path.relative_to(nights.output)): path.stat().st_mtime_ns
        for path in nights.output.glob("nights/*/[!_]*")
    }


def test_the_first_night_labels_all_and_the_next_what_is_new(nights: Nights) -> None:
    first = nights.night()
    (record,) = first.nights
    assert (first.exit_code, record.new, record.records, record.message) == (0, 2, 12, "done")
    assert labelled(nights) == {"a": 6, "b": 6}
    before = files_of(nights)

    nights.shard("c", images(4))
    second = nights.night()
    (record,) = second.nights
    assert (record.new, record.late, record.rewritten, record.records) == (1, 0, 0, 4)
    assert (second.shards, second.records) == (3, 16)
    assert labelled(nights) == {"a": 6, "b": 6, "c": 4}
    assert files_of(nights).items() > before.items()


def test_a_night_without_anything_new_says_so_and_changes_no_label(nights: Nights) -> None:
    nights.night()
    before = (nights.output / "_manifest.json").read_text()
    receipt = nights.night()
    assert (receipt.exit_code, receipt.shards, receipt.records) == (0, 2, 12)
    assert [(record.night, record.message) for record in receipt.nights] == [
        (None, "nothing to do")
    ]
    assert (nights.output / "_manifest.json").read_text() == before
    assert len(nights.log()) == 2


def test_late_and_rewritten_shards_are_found_and_what_they_replace_stays(nights: Nights) -> None:
    nights.night()
    old = {row["key"]: row["probabilities"] for row in nights.rows()}
    os.utime(nights.shard("0-late", images(2)), (1e9, 1e9))
    nights.shard("a", images(3))
    before = files_of(nights)
    (record,) = nights.night().nights
    assert (record.new, record.late, record.rewritten) == (0, 1, 1)
    assert labelled(nights) == {"0-late": 2, "a": 3, "b": 6}
    now = {row["key"]: row["probabilities"] for row in nights.rows()}
    assert all((now[key] != old[key]) == key.startswith("a/") for key in now.keys() & old.keys())
    assert files_of(nights).items() > before.items()


def test_a_shard_that_is_gone_keeps_its_labels(nights: Nights) -> None:
    nights.night()
    (nights.folder / "corpus/a.tar").unlink()
    assert nights.night().exit_code == 0
    assert labelled(nights) == {"a": 6, "b": 6}


def test_a_shard_that_changes_while_it_is_read_is_left_for_the_next_night(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_all = classify.count_all

    def written_on(shards: Any) -> dict[str, int]:
        counts = count_all(shards)
        monkeypatch.undo()
        nights.shard("b", images(9))
        return counts

    monkeypatch.setattr(classify, "count_all", written_on)
    receipt = nights.night()
    (record,) = receipt.nights
    assert (receipt.exit_code, record.new, record.left) == (0, 1, 1)
    assert "1 shards left for the next night" in record.line()
    assert labelled(nights) == {"a": 6}
    (record,) = nights.night().nights
    assert (record.new + record.late, record.records) == (1, 9)
    assert labelled(nights) == {"a": 6, "b": 9}


def test_a_shard_that_changed_after_it_was_read_is_left_too(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = classify.label

    def then_written(*given: Any) -> Any:
        receipt = label(*given)
        monkeypatch.undo()
        nights.shard("b", images(9))
        return receipt

    monkeypatch.setattr(classify, "label", then_written)
    (record,) = nights.night().nights
    assert (record.new, record.left) == (1, 1)
    assert labelled(nights) == {"a": 6}
    nights.night()
    assert labelled(nights) == {"a": 6, "b": 9}


def test_a_night_in_which_every_shard_changed_labels_nothing(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_all = classify.count_all

    def written_on(shards: Any) -> dict[str, int]:
        counts = count_all(shards)
        for shard in shards:
            nights.shard(shard.name, images(7))
        return counts

    monkeypatch.setattr(classify, "count_all", written_on)
    receipt = nights.night()
    (record,) = receipt.nights
    assert (receipt.exit_code, record.left, record.shards) == (0, 2, 0)
    assert record.message == "nothing was left to label"
    monkeypatch.undo()
    nights.night()
    assert labelled(nights) == {"a": 7, "b": 7}


def test_too_many_bad_records_leave_the_manifest_and_the_next_night_goes_on(
    nights: Nights,
) -> None:
    nights.night()
    before = (nights.output / "_manifest.json").read_text()
    nights.shard("bad", [b"no image"] * 4)
    nights.shard("good", images(4))
    receipt = nights.night()
    (record,) = receipt.nights
    assert receipt.exit_code == 3
    assert not record.closed
    assert "4 of 8 records were rejected" in record.message
    assert (nights.output / "_manifest.json").read_text() == before
    good = {name: at for name, at in files_of(nights).items() if "good" in name}

    nights.shard("bad", images(4))
    receipt = nights.night()
    assert receipt.exit_code == 0
    assert [(r.night[:4] if r.night else "", r.resumed, r.shards) for r in receipt.nights] == [
        ("0002", True, 1),
        ("0003", False, 1),
    ]
    assert [(r.records, r.rejected) for r in receipt.nights] == [(4, 0), (4, 0)]
    assert labelled(nights) == {"a": 6, "b": 6, "bad": 4, "good": 4}
    assert files_of(nights).items() > good.items()


def test_more_good_shards_may_outweigh_the_bad_ones_of_a_night(nights: Nights) -> None:
    nights.shard("bad", [b"no image"] * 2)
    assert nights.night().exit_code == 3
    assert not (nights.output / "_manifest.json").exists()
    nights.shard("more", images(20))
    receipt = nights.night()
    (record,) = receipt.nights
    assert (receipt.exit_code, record.resumed, record.rejected) == (0, True, 2)
    assert labelled(nights) == {"a": 6, "b": 6, "bad": 2, "more": 20}


@pytest.mark.parametrize("name", ["merge", "note"])
def test_a_night_stopped_at_its_end_is_closed_by_the_next_call(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stopped_once(monkeypatch, night_run, name)
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    before = files_of(nights)
    nights.shard("c", images(4))
    receipt = nights.night()
    (record,) = receipt.nights
    assert (receipt.exit_code, record.resumed, record.new, record.records) == (0, True, 3, 16)
    assert record.night == "0001" + record.night[4:]
    assert labelled(nights) == {"a": 6, "b": 6, "c": 4}
    assert files_of(nights).items() > before.items()
    assert nights.night().nights[0].message == "nothing to do"


def test_a_night_stopped_once_it_is_noted_is_not_done_again(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, Output, "delete")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    assert (nights.output / "_night.json").exists()
    assert [record.message for record in nights.night().nights] == ["nothing to do"]
    assert labelled(nights) == {"a": 6, "b": 6}


def test_a_stopped_night_ends_with_the_policy_it_began_with(
    nights: Nights, other_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, classify, "run_shards")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    nights.publish(other_policy)
    nights.shard("c", images(4))
    first, second = nights.night().nights
    assert (first.policy_version, first.shards, first.resumed) == (1, 2, True)
    assert (second.policy_version, second.shards, second.resumed) == (2, 1, False)
    manifest = nights.manifest()
    versions = {
        shard: manifest["nights"][night]["policy_version"]
        for shard, night in manifest["night_of"].items()
    }
    assert versions == {"a": 1, "b": 1, "c": 2}
    assert {tuple(r["trail"]) for r in nights.rows() if r["key"].startswith("c/")} == {("big",)}


def test_a_stopped_night_is_given_up_if_the_job_decodes_otherwise_now(
    nights: Nights, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, night_run, "merge")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    nights.write_job(world.networks, "max-pixels = 5000\n")
    first, second = nights.night().nights
    assert first.closed
    assert (
        "given up, its shards are labelled anew: it was begun with --max-pixels, --max-image"
        in (first.message)
    )
    assert (second.night[:4] if second.night else "", second.shards) == ("0002", 2)
    assert labelled(nights) == {"a": 6, "b": 6}


def test_a_bad_night_is_given_up_for_another_policy(nights: Nights, other_policy: str) -> None:
    nights.shard("bad", [b"no image"] * 2)
    assert nights.night().exit_code == 3
    nights.publish(other_policy)
    nights.shard("more", images(20))
    first, second = nights.night().nights
    assert "policy 1 is not in use any more, and too many of its records were" in first.message
    assert (second.policy_version, second.records, second.exit_code) == (2, 34, 0)


def test_a_stopped_night_is_given_up_for_a_policy_of_other_networks(
    nights: Nights, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, classify, "run_shards")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    networks = world.networks_file(nights.folder / "other", seed=9)
    table, policy = str(tmp_path / "table"), str(tmp_path / "other")
    world.extract(networks=networks, output=table)
    world.fit(table=table, policy=policy, max_loss=0.0)
    nights.publish(policy)
    nights.write_job(networks)
    assert nights.night().exit_code == 2
    first, second = nights.night().nights
    assert "policy 1 is not in use any more, and with it the night was refused" in first.message
    assert (second.policy_version, second.shards, second.exit_code) == (2, 2, 0)
    assert labelled(nights) == {"a": 6, "b": 6}


def test_a_stopped_night_is_given_up_for_another_policy_if_its_own_is_damaged(
    nights: Nights, other_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, classify, "run_shards")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    (bundle,) = nights.folder.glob("policies/bundles/*")
    nights.publish(other_policy)
    (bundle / "policy.json").write_text("{}")
    assert nights.night().exit_code == 7
    first, second = nights.night().nights
    assert "policy 1 is not in use any more, and it is not what was published" in first.message
    assert (second.policy_version, second.shards, second.exit_code) == (2, 2, 0)


def test_a_stopped_night_is_given_up_if_its_policys_number_is_anothers_now(
    nights: Nights, other_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, night_run, "_label")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    shutil.rmtree(nights.folder / "policies")
    nights.publish(other_policy)
    first, second = nights.night().nights
    assert re.search(r"policies has no policy 1 \(sha256 .*\), which it was begun", first.message)
    assert (second.policy_version, second.shards, second.exit_code) == (1, 2, 0)
    made = nights.manifest()["nights"][second.night]["made_by"]
    assert made["policy"] == second.policy


def test_a_night_given_up_after_its_labels_were_published_says_that_they_stay(
    nights: Nights, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, night_run, "note")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    nights.write_job(world.networks, "max-pixels = 5000\n")
    (record,) = nights.night().nights
    assert record.closed
    assert "its labels are part of the manifest and stay, all others are made anew" in (
        record.message
    )
    assert labelled(nights) == {"a": 6, "b": 6}


def test_a_night_that_would_not_wait_for_its_job_is_refused(nights: Nights) -> None:
    job = nights.folder / "job.toml"
    job.write_text(job.read_text() + 'beam = ["--no_wait_until_finish"]\n')
    with pytest.raises(InputError, match="a night has to wait for its job, or no labels become"):
        nights.night()
    assert not nights.output.exists()


def test_two_nights_at_once_are_one_too_many(nights: Nights) -> None:
    with claimed(str(nights.output)):
        with pytest.raises(OutputInUse, match=r"labels: run .* writes to this output; wait for"):
            nights.night()
        assert main(["nightly", "--job", str(nights.folder / "job.toml")]) == 4


def test_without_a_policy_in_use_a_night_is_refused(world: Any, tmp_path: Path) -> None:
    nights = Nights(tmp_path / "job")
    nights.write_job(world.networks)
    nights.shard("a", images())
    receipt = nights.night()
    assert receipt.exit_code == 2
    assert "no policy is in use; publish one with `adalabel policy publish`" in nights.log()[0]


def test_a_damaged_policy_is_refused_and_labels_stay_untouched(nights: Nights) -> None:
    nights.night()
    before = files_of(nights)
    (bundle,) = nights.folder.glob("policies/bundles/*")
    (bundle / "policy.json").write_text("{}")
    nights.shard("c", images())
    receipt = nights.night()
    assert receipt.exit_code == 7
    assert "not what was published as version 1" in receipt.nights[0].message
    assert files_of(nights) == before


def test_networks_that_the_policy_does_not_fit_are_refused(nights: Nights, world: Any) -> None:
    nights.night()
    before = nights.rows()
    nights.shard("c", images())
    job = (nights.folder / "job.toml").read_text()
    nights.write_job(world.networks_file(nights.folder / "other", seed=9))
    receipt = nights.night()
    assert receipt.exit_code == 2
    assert "the policy was fitted for network" in receipt.nights[0].message
    assert nights.rows() == before
    (nights.folder / "job.toml").write_text(job)
    assert nights.night().nights[0].resumed
    assert labelled(nights) == {"a": 6, "b": 6, "c": 6}


def test_input_that_names_a_labelled_shard_otherwise_is_refused(nights: Nights) -> None:
    nights.night()
    job = nights.folder / "job.toml"
    job.write_text(job.read_text().replace("corpus/*.tar", "*/*.tar"))
    receipt = nights.night()
    assert receipt.exit_code == 2
    assert "is labelled as shard 'a', and by the job's input it is 'corpus/a' now" in (
        receipt.nights[0].message
    )
    assert labelled(nights) == {"a": 6, "b": 6}


def test_the_folder_of_nights_is_closed_to_other_runs(nights: Nights, world: Any) -> None:
    nights.night()
    before = files_of(nights)
    modes: tuple[Mode, ...] = ("resume", "overwrite")
    for mode in modes:
        with pytest.raises(InputError, match="holds the labels of many nights, and only `adalabel"):
            world.classify(nights.output, mode=mode)
        with pytest.raises(InputError, match="holds the labels of many nights, and only `adalabel"):
            looked_at(str(nights.output), mode, LABELS, {})
    assert files_of(nights) == before


def test_the_folder_of_one_run_is_closed_to_nights(nights: Nights, world: Any) -> None:
    world.classify(nights.output)
    with pytest.raises(InputError, match="holds the labels of one run of `adalabel classify`"):
        nights.night()
    (nights.output / "_run.json").unlink()
    with pytest.raises(InputError, match="nights need a folder of their own"):
        nights.night()


def test_the_command_prints_the_line_and_ends_with_its_exit_code(
    nights: Nights, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["nightly", "--job", str(nights.folder / "job.toml")]
    assert main(command) == 0
    line, total = capsys.readouterr().out.splitlines()
    assert line == nights.log()[0]
    assert "2 shards (2 new, 0 late, 0 rewritten), 12 records, 12 labelled, 0 rejected" in line
    assert total == f"{nights.output}: 2 shards, 12 records are labelled"
    nights.shard("c", [b"no image"])
    assert main([*command, "--json"]) == 3
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["exit_code"], receipt["nights"][0]["exit_code"]) == (3, 3)
    assert "1 of 1 records were rejected" in caplog.text


def test_beams_own_flags_come_from_the_job(nights: Nights) -> None:
    job = nights.folder / "job.toml"
    job.write_text(job.read_text() + 'workers = 2\nbeam = ["--no_such_flag=1"]\n')
    options = nightly.NightlyOptions(job=str(job))
    assert (options.runner.workers, options.runner.beam_flags) == (2, ("--no_such_flag=1",))
    assert main(["nightly", "--job", str(job)]) == 2


def test_a_dry_run_tells_what_the_next_night_labels_and_writes_nothing(nights: Nights) -> None:
    options = nightly.NightlyOptions(job=str(nights.folder / "job.toml"), dry_run=True)

    def looked() -> DryRun:
        return explain_nightly.run(options, preset(options.runner))

    first = looked()
    assert not nights.output.exists()
    assert (first.command, first.output) == ("nightly", str(nights.output))
    assert (first.todo.shards, first.todo.records, first.todo.done) == (2, 12, 0)
    nights.night()
    nights.shard("b", images(5))
    nights.shard("c", images(3))
    before = sorted(nights.output.rglob("*"))
    then = looked()
    assert sorted(nights.output.rglob("*")) == before
    assert (then.todo.shards, then.todo.records) == (2, 8)
    assert (then.todo.done, then.todo.changed) == (1, 1)
    assert nights.night().nights[-1].records == 8
    assert looked().todo.shards == 0


def test_a_dry_run_counts_what_a_stopped_night_has_done(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_once(monkeypatch, night_run, "merge")
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    options = nightly.NightlyOptions(job=str(nights.folder / "job.toml"), dry_run=True)
    found = explain_nightly.run(options, preset(options.runner)).todo
    assert (found.shards, found.done) == (0, 2)


def folder_of_images(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three plain images, in groups of two, as the job's input."""
    monkeypatch.setattr(image_files, "FILES_PER_SHARD", 2)
    job = nights.folder / "job.toml"
    job.write_text(job.read_text().replace("corpus/*.tar", "plain/*.png"))
    plain = nights.folder / "plain"
    plain.mkdir()
    for number, image in enumerate(images(3)):
        (plain / f"{number}.png").write_bytes(image)
    nights.night()
    assert len(nights.manifest()["shards"]) == 2
    return plain


def test_an_image_that_moves_to_another_group_of_its_folder_is_labelled_once(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = folder_of_images(nights, monkeypatch)
    (plain / "0.png").unlink()
    assert nights.night().exit_code == 0
    keys = sorted(row["key"].rpartition("/")[2] for row in nights.rows())
    assert keys == ["1.png", "2.png"]
    assert len(nights.manifest()["shards"]) == 1
    assert main(["verify", str(nights.output)]) == 0


def test_the_groups_of_a_folder_become_current_together(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = folder_of_images(nights, monkeypatch)
    before = nights.manifest()
    for number in (0, 2):
        (plain / f"{number}.png").write_bytes(images(1)[0])
    own = classify.label

    def then_changed(*given: Any) -> Any:
        made = own(*given)
        (plain / "2.png").write_bytes(images(1)[0] + b" ")
        return made

    monkeypatch.setattr(classify, "label", then_changed)
    (record,) = nights.night().nights
    assert (record.exit_code, record.left, record.records) == (0, 2, 3)
    assert nights.manifest()["inputs"] == before["inputs"]
    monkeypatch.setattr(classify, "label", own)
    nights.night()
    assert len(nights.rows()) == 3
    assert nights.manifest()["inputs"] != before["inputs"]
