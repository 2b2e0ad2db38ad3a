"""Promise against reality, end to end: no alarm on images like the table's, and one on others."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_images

from launch.cli import main
from pipelines import alarms
from policy.audit import audited
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import Alarm, InputError
from policy.rules import always
from transforms import watch
from transforms.audit import SEED
from transforms.watch import AFTER, ALARM

SHARDS, RECORDS, FRACTION = 12, 40, 0.5


@dataclass(frozen=True)
class Corpus:
    """Shards, a policy that keeps its promise on them, and one that does not."""

    input: str
    good: str
    bent: str


@pytest.fixture(scope="module")
def corpus(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Images like the table's; the bent policy stops at the small network for all of them."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(1)
    for number in range(SHARDS):
        images = [tiny_images.tinted(rng) for _ in range(RECORDS)]
        members = tiny_images.members(images, [None] * RECORDS)
        tiny.write_tar(folder / f"n{number:02d}.tar", members)
    bundle = read_bundle(world.policy)
    bent = replace(bundle, policy=always(bundle.policy.graph, "small"))
    write_bundle(str(folder / "bent"), bent)
    return Corpus(str(folder / "*.tar"), world.policy, str(folder / "bent"))


@pytest.fixture(autouse=True)
def _look_at_every_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_LOOKING_SHARE", 0)  # or looks that are slow are few


def labelled(world: Any, corpus: Corpus, output: Path, **changes: Any) -> Any:
    options = {"input": (corpus.input,), "policy": corpus.bent, "audit_fraction": 1.0}
    return world.classify(output, **{"batch_size": 8, **options, **changes})


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def audits(output: Path) -> list[tuple[Any, ...]]:
    return [(row["key"], row["label"], row["audit"], row["disagrees"]) for row in rows_of(output)]


def done(output: Path) -> dict[str, bool]:
    """The shards that are done, and whether they were labelled after an alarm."""
    found = [json.loads(path.read_text()) for path in sorted(output.glob("n*.json"))]
    return {marker["shard"]: marker[AFTER] for marker in found}


@pytest.fixture(scope="module")
def good(world: Any, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Labels by the policy that keeps its promise, not to be changed, and their receipt."""
    output = tmp_path_factory.mktemp("good") / "out"
    return output, labelled(world, corpus, output, policy=corpus.good, audit_fraction=FRACTION)


def test_images_like_the_tables_raise_no_alarm(good: tuple[Path, Any], world: Any) -> None:
    output, receipt = good
    found, rows = receipt.reality, rows_of(output)
    assert found.alarm is None
    assert not (output / ALARM).exists()
    assert found.low < found.rate == found.disagreed / found.audited < found.high < found.bound
    assert found.highest < 2
    assert not found.exits.drifted
    assert not found.classes.drifted
    assert {name for name, _ in found.classes.moved} < {"ant", "bee", "cat", "dog", "elk", "fox"}
    chosen = audited([row["key"] for row in rows], FRACTION, SEED)
    assert [row["audit"] is not None for row in rows] == chosen.tolist()
    assert found.audited == chosen.sum()
    assert found.disagreed == sum(bool(row["disagrees"]) for row in rows) > 0
    seen = [row for row in rows if row["audit"] is not None]
    assert all((row["audit"] != row["label"]) == row["disagrees"] for row in seen)
    graph = read_bundle(world.policy).policy.graph
    extra = [graph.step_cost(row["trail"], "big") for row in seen]
    assert found.audit_cost == pytest.approx(sum(extra) / len(rows))
    early = receipt.exits["small"] / receipt.records
    assert found.audit_cost == pytest.approx(FRACTION * early * receipt.full_cost, rel=0.2)


def test_the_receipt_says_what_was_promised_and_what_came_of_it(good: tuple[Path, Any]) -> None:
    text = good[1].text()
    assert re.search(
        r"audit     \d+ of \d+ images disagree with the full network by top1: \d.*"
        r"; promised at most \d.*%, evidence against it \S+, highest \S+ \(alarm at 50\)\n"
        r" +costs \S+ gmac per image, with it \S+\n"
        r"  exits     \S+% of the images moved from the table, within the \S+% of chance: \w+ .*\n"
        r"  classes   \S+% of the images moved from the table, within the \S+% of chance: \w+ ",
        text,
    )
    assert "ALARM" not in text
    written = json.loads((good[0] / "_receipt.json").read_text())["reality"]
    assert (written["audited"], written["metric"]) == (good[1].reality.audited, "top1")


def test_labels_are_the_same_without_an_audit(
    world: Any, corpus: Corpus, good: tuple[Path, Any], tmp_path: Path
) -> None:
    receipt = labelled(world, corpus, tmp_path / "out", policy=corpus.good, audit_fraction=0.0)
    hidden = {"audit": None, "disagrees": None}
    assert rows_of(tmp_path / "out") == [row | hidden for row in rows_of(good[0])]
    assert (receipt.reality.audited, receipt.reality.rate, receipt.reality.audit_cost) == (
        0,
        None,
        0,
    )
    assert "no image was compared with the full network" in receipt.text()


@pytest.mark.slow
def test_two_workers_audit_the_same_images(
    world: Any, corpus: Corpus, good: tuple[Path, Any], tmp_path: Path
) -> None:
    from launch.runners import local  # noqa: PLC0415 - Beam takes a second
    from pipelines import classify  # noqa: PLC0415

    options = classify.ClassifyOptions(
        networks=world.networks,
        policy=corpus.good,
        input=(corpus.input,),
        output=str(tmp_path / "out"),
        audit_fraction=FRACTION,
        batch_size=8,
        threads=1,
        workers=2,
    )
    receipt = classify.run(options, local(2))
    assert audits(tmp_path / "out") == audits(good[0])
    assert receipt.reality == good[1].reality


def test_another_fraction_goes_on_where_the_first_one_stopped(
    world: Any, corpus: Corpus, good: tuple[Path, Any], tmp_path: Path
) -> None:
    first = corpus.input.replace("*", "n0[0-3]")
    options = {"policy": corpus.good, "audit_fraction": FRACTION}
    labelled(world, corpus, tmp_path / "out", input=(first,), **options | {"audit_fraction": 0.0})
    receipt = labelled(world, corpus, tmp_path / "out", **options)
    assert receipt.newly_labelled == (SHARDS - 4) * RECORDS
    later = audits(good[0])[4 * RECORDS :]
    assert audits(tmp_path / "out")[4 * RECORDS :] == later
    assert receipt.reality.audited == sum(full is not None for _, _, full, _ in later)


def test_warn_labels_everything_by_the_policy_and_says_so(
    world: Any, corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "adalabel"):
        receipt = labelled(world, corpus, tmp_path / "out")
    assert set(done(tmp_path / "out").values()) == {False}
    assert {tuple(row["trail"]) for row in rows_of(tmp_path / "out")} == {("small",)}
    assert "audited images" in receipt.reality.alarm
    assert json.loads((tmp_path / "out" / ALARM).read_text())["message"] == receipt.reality.alarm
    assert receipt.reality.exits.drifted
    assert f"ALARM     {receipt.reality.alarm}" in receipt.text()
    assert "more than the" in receipt.text()
    assert f"alarm: {receipt.reality.alarm}. The images are probably unlike" in caplog.text


def test_full_sends_what_is_begun_after_the_alarm_through_the_full_network_alone(
    world: Any, corpus: Corpus, tmp_path: Path
) -> None:
    receipt = labelled(world, corpus, tmp_path / "out", on_alarm="full")
    found = done(tmp_path / "out")
    after = {name for name, late in found.items() if late}
    assert 0 < len(after) == receipt.reality.after_alarm < len(found) == SHARDS
    trails = {
        (row["key"].split("/")[0] in after, *row["trail"]) for row in rows_of(tmp_path / "out")
    }
    assert trails == {(False, "small"), (True, "big")}
    assert f"{len(after)} shards went through the full network alone" in receipt.text()
    own = [row for row in rows_of(tmp_path / "out") if row["trail"] == ["small"]]
    assert receipt.reality.audited == sum(row["audit"] is not None for row in own)
    assert all(row["audit"] is None for row in rows_of(tmp_path / "out") if row not in own)


@pytest.fixture
def stopped(world: Any, corpus: Corpus, tmp_path: Path) -> Path:
    """Labels that an alarm stopped."""
    message = (
        r"out: \d+ of \d+ audited images \(\S+%\) disagree with the full network; by the table at "
        r"most .* alarm at 50\)\. The images are probably unlike those .* label some of them, "
        r"extract and fit again\. Or go on with --on-alarm full .* \d+ shards with \d+ records "
        r"were not begun\. What is done stays done\.$"
    )
    with pytest.raises(Alarm, match=message) as raised:
        labelled(world, corpus, tmp_path / "out", on_alarm="stop")
    assert raised.value.exit_code == 6
    return tmp_path / "out"


def test_stop_leaves_what_is_not_begun_and_keeps_what_is_done(stopped: Path) -> None:
    found = done(stopped)
    assert 0 < len(found) < SHARDS
    receipt = json.loads((stopped / "_receipt.json").read_text())
    reality, manifest = receipt["reality"], json.loads((stopped / "_manifest.json").read_text())
    assert manifest["shards"] == dict.fromkeys(found, RECORDS)
    left = SHARDS - len(found)
    assert (reality["not_begun"], reality["records_not_begun"]) == (left, left * RECORDS)
    assert receipt["records"] == len(rows_of(stopped)) == len(found) * RECORDS
    assert main(["verify", str(stopped)]) == 0


def test_a_run_after_the_alarm_stops_at_once_or_goes_on_as_it_is_told(
    world: Any, corpus: Corpus, stopped: Path
) -> None:
    before, files = done(stopped), {p: p.stat().st_mtime_ns for p in stopped.glob("[!_]*")}
    alarm = json.loads((stopped / ALARM).read_text())["message"]
    again = f"stopped by an alarm of an earlier run: {re.escape(alarm)}. The images"
    with pytest.raises(Alarm, match=again):
        labelled(world, corpus, stopped, on_alarm="stop")
    assert {p: p.stat().st_mtime_ns for p in stopped.glob("[!_]*")} == files
    receipt = labelled(world, corpus, stopped, on_alarm="full", audit_fraction=0.0)
    assert done(stopped) == before | {name: True for name in done(stopped) if name not in before}
    assert receipt.reality.after_alarm == SHARDS - len(before)
    assert (receipt.reality.alarm, receipt.reality.not_begun) == (alarm, 0)


@pytest.mark.parametrize("manifest", [True, False])
def test_a_run_killed_after_its_alarm_publishes_what_was_done_when_it_is_run_again(
    world: Any, corpus: Corpus, stopped: Path, *, manifest: bool
) -> None:
    """Killed before the receipt and the manifest, of which one may still be of an earlier run."""
    whole = {path.name: path.read_bytes() for path in stopped.glob("*.json")}
    if manifest:
        says = json.loads(whole["_manifest.json"])
        gone = next(iter(says["shards"]))
        del says["shards"][gone], says["inputs"][gone]
        (stopped / "_manifest.json").write_text(json.dumps(says))
    else:
        (stopped / "_manifest.json").unlink()
    (stopped / "_receipt.json").unlink()
    with pytest.raises(Alarm, match=r"were not begun\. What is done stays done"):
        labelled(world, corpus, stopped, on_alarm="stop")
    found = json.loads((stopped / "_manifest.json").read_text())
    assert found == json.loads(whole["_manifest.json"])
    assert json.loads((stopped / "_receipt.json").read_text())["reality"]["alarm"]
    assert main(["verify", str(stopped)]) == 0
    with pytest.raises(Alarm, match="by an alarm of an earlier run"):
        labelled(world, corpus, stopped, on_alarm="stop")


def test_after_an_alarm_warn_finishes_with_the_policy(
    world: Any, corpus: Corpus, stopped: Path
) -> None:
    receipt = labelled(world, corpus, stopped, on_alarm="warn")
    assert set(done(stopped).values()) == {False}
    assert len(done(stopped)) == SHARDS
    assert receipt.reality.alarm


def test_overwriting_forgets_the_alarm(world: Any, corpus: Corpus, stopped: Path) -> None:
    options = {"mode": "overwrite", "on_alarm": "stop"}
    receipt = labelled(world, corpus, stopped, policy=corpus.good, **options)
    assert receipt.reality.alarm is None
    assert not (stopped / ALARM).exists()
    assert len(done(stopped)) == SHARDS


def test_an_alarm_on_the_way_leaves_the_result_that_was_to_be_replaced(
    world: Any, corpus: Corpus, tmp_path: Path
) -> None:
    labelled(world, corpus, tmp_path / "out", policy=corpus.good)
    before = audits(tmp_path / "out")
    for _ in range(2):  # nothing of the first attempt stops the second
        with pytest.raises(Alarm, match=r"not begun\. The result that stood before is"):
            labelled(world, corpus, tmp_path / "out", mode="overwrite", on_alarm="stop")
        assert audits(tmp_path / "out") == before
        assert not (tmp_path / "out" / ALARM).exists()
        assert not (tmp_path / "out/_next").exists()


def test_retrying_goes_on_with_the_alarm_of_the_result(
    world: Any, corpus: Corpus, stopped: Path
) -> None:
    before = done(stopped)
    with pytest.raises(Alarm, match="by an alarm of an earlier run"):
        labelled(world, corpus, stopped, mode="retry-failed", on_alarm="stop")
    assert done(stopped) == before
    receipt = labelled(world, corpus, stopped, mode="retry-failed", on_alarm="full")
    assert Counter(done(stopped).values())[True] == SHARDS - len(before)
    assert receipt.reality.alarm
    assert (stopped / ALARM).exists()


def test_an_alarm_that_only_the_receipt_sees_ends_a_run_that_is_to_stop(
    world: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "LOOK_SECONDS", 1e9)
    with pytest.raises(Alarm, match=r"warn\. What is done stays done\.$"):
        labelled(world, corpus, tmp_path / "out", on_alarm="stop")
    assert len(done(tmp_path / "out")) == SHARDS
    assert (tmp_path / "out" / ALARM).exists()


def test_without_a_reference_there_is_nothing_to_compare_with(
    world: Any, corpus: Corpus, tmp_path: Path
) -> None:
    bundle = read_bundle(corpus.bent)
    old = replace(bundle, evidence=replace(bundle.evidence, reference=None))
    write_bundle(str(tmp_path / "old"), old)
    receipt = labelled(world, corpus, tmp_path / "out", policy=str(tmp_path / "old"))
    assert receipt.reality.audited > 100
    assert (receipt.reality.bound, receipt.reality.exits, receipt.reality.alarm) == (None,) * 3
    assert "nothing to compare with: fit again" in receipt.text()


def test_a_policy_without_the_full_network_is_not_audited(
    world: Any, corpus: Corpus, tmp_path: Path
) -> None:
    bundle = read_bundle(corpus.bent)
    prints = {"small": bundle.fingerprints["small"]}
    write_bundle(str(tmp_path / "p"), Bundle(bundle.policy, bundle.class_names, prints))
    receipt = labelled(world, corpus, tmp_path / "out", policy=str(tmp_path / "p"))
    assert (receipt.reality.audited, receipt.reality.audit_cost) == (0, 0.0)
    with pytest.raises(InputError, match="--on-alarm full: the policy does not name the full netw"):
        labelled(world, corpus, tmp_path / "o", policy=str(tmp_path / "p"), on_alarm="full")


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_that_is_none_is_refused(
    world: Any, corpus: Corpus, tmp_path: Path, fraction: float
) -> None:
    with pytest.raises(InputError, match=rf"--audit-fraction {fraction:g}: wanted 0 \(no audit\)"):
        labelled(world, corpus, tmp_path / "out", audit_fraction=fraction)
