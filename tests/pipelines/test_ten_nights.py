"""Ten nights, end to end: late and rewritten shards, a crash, a bad policy, and drift.

Networks are trained on handwritten digits, policies fitted and certified on others, and what the
nights label are digits that neither has seen. Nothing is made up but the turned camera of night 8.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from nights import Nights

from launch.cli import main
from launch.runners import local
from pipelines import classify, demo_data, extract, fit
from pipelines.demo_data import Digits, load_parts, write_networks, write_shards
from policy.bundle import read_bundle, write_bundle
from policy.errors import InputError
from policy.rules import always

ROOT = Path(__file__).parents[2]
RECORDS = 17  # of a shard
OLD = 1_000_000_000.0  # long before the first night


class Story:
    """The job, digits to be photographed, and what every shard must hold by now."""

    def __init__(self, folder: Path) -> None:
        self.parts = {
            "train": load_parts(0)["train"],
            "table": load_parts(0)["table"],
            "corpus": load_parts(0)["corpus"],
        }
        self.nights = Nights(folder / "job")
        self.folder = folder
        self.networks = write_networks(folder / "networks", self.parts["train"], 0)
        self.wanted: dict[str, set[str]] = {}
        self.policies: dict[int, str] = {}
        self.used = 0

    def policy(self, name: str, shards: str, *, confidence: float | None = 0.95) -> str:
        """Fit a policy on what is labelled; without a confidence, nothing is proved."""
        table, policy = self.folder / f"{name}-table", str(self.folder / name)
        options = extract.ExtractOptions(
            networks=str(self.networks), input=(shards,), output=str(table), threads=1
        )
        extract.run(options, local(1))
        fit.run(
            fit.FitOptions(
                table=str(table),
                policy=policy,
                max_loss=0.1,
                confidence=confidence,
                choose_share=0.15,
                test_share=0.3,
            )
        )
        return policy

    def digits(self, *, turned: bool = False) -> Digits:
        """The next digits; turned by a quarter, as if the camera lay on its side."""
        rows = np.arange(self.used, self.used + RECORDS)
        self.used += RECORDS
        found = self.parts["corpus"].take(rows)
        return turned_by_a_quarter(found) if turned else found

    def arrive(self, *names: str, turned: bool = False, modified: float | None = None) -> None:
        """Shards appear in the corpus, or are written anew."""
        for name in names:
            digits = self.digits(turned=turned)
            path = self.nights.folder / "corpus" / f"{name}.tar"
            (made,) = Path(write_shards(self.folder / "new" / name, name, digits)).parent.iterdir()
            path.parent.mkdir(parents=True, exist_ok=True)
            made.rename(path)
            if modified is not None:
                os.utime(path, (modified, modified))
            self.wanted[name] = {f"{name}/{key}" for key in digits.keys}

    def check(self) -> None:
        """Every record of every shard there so far is labelled, once; and every file is whole."""
        rows = self.nights.rows()
        assert Counter(row["key"] for row in rows) == Counter(
            key for keys in self.wanted.values() for key in keys
        )
        assert {row["status"] for row in rows} == {"ok"}
        manifest = self.nights.manifest()
        assert manifest["shards"] == dict.fromkeys(sorted(self.wanted), RECORDS)
        assert main(["verify", str(self.nights.output)]) == 0

    def night(self, code: int = 0) -> Any:
        """Run a night to its end; its last record."""
        receipt = self.nights.night()
        assert receipt.exit_code == code, receipt.text()
        self.check()
        return receipt.nights[-1]


def turned_by_a_quarter(digits: Digits) -> Digits:
    return replace(digits, images=np.ascontiguousarray(np.rot90(digits.images, axes=(1, 2))))


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setattr(demo_data, "SIDES", {"small": 8, "medium": 16})  # trained in two seconds
    found = Story(tmp_path)
    found.nights.write_job(str(found.networks), '[audit]\nfraction = 1.0\non-alarm = "full"\n')
    return found


def killed_in_the_middle(story: Story, night: str, shards: int) -> None:
    """Start a night as cron would, and kill it when some of its shards are done."""
    command = [sys.executable, "-m", "launch.cli", "nightly"]
    command += ["--job", str(story.nights.folder / "job.toml")]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(story.nights.output.glob(f"nights/{night}-*/[!_]*.json")):
        assert run.poll() is None, "the night ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(list(story.nights.output.glob(f"nights/{night}-*/[!_]*.json"))) <= shards


def undisturbed(story: Story, policy: str, output: str) -> dict[str, tuple[Any, ...]]:
    """What one run of classify over all that is there says of each record."""
    options = classify.ClassifyOptions(
        networks=str(story.networks),
        policy=policy,
        input=(str(story.nights.folder / "corpus/*.tar"),),
        output=str(story.folder / output),
        batch_size=8,
        threads=1,
    )
    classify.run(options, local(1))
    paths = (story.folder / output).glob("*.parquet")
    return said([row for path in paths for row in pq.read_table(path).to_pylist()])


def said(rows: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {row["key"]: (row["label"], row["trail"], row["status"]) for row in rows}


@pytest.mark.slow
def test_ten_nights(story: Story) -> None:
    nights = story.nights
    labelled = write_shards(story.folder / "labelled", "table", story.parts["table"])
    first = story.policy("first", labelled)
    assert nights.publish(first, force=False).version.blessed

    story.arrive("a1", "a2", "a3")
    assert story.night().new == 3

    story.arrive("b1", "b2")
    assert story.night().new == 2

    story.arrive("c1")
    story.arrive("a4-late", modified=OLD)
    third = story.night()
    assert (third.new, third.late, third.rewritten) == (1, 1, 0)

    story.arrive("d1", "d2", "d3", "d4", "d5", "d6")
    before = nights.manifest()
    killed_in_the_middle(story, "0004", 6)
    assert nights.manifest() == before
    fourth = story.night()
    assert (fourth.night[:4], fourth.resumed, fourth.new) == ("0004", True, 6)

    story.arrive("a2")
    story.arrive("e1")
    fifth = story.night()
    assert (fifth.new, fifth.late, fifth.rewritten) == (1, 0, 1)

    bad = story.policy("bad", labelled, confidence=None)
    write_bundle(
        bad, replace(read_bundle(bad), policy=always(read_bundle(bad).policy.graph, "small"))
    )
    with pytest.raises(InputError, match=r"is stored as version 2 .* CURRENT stays what it was"):
        nights.publish(bad, force=False)
    story.arrive("f1", "f2")
    assert story.night().policy_version == 1

    story.arrive("b3-late", modified=OLD)
    seventh = story.night()
    assert (seventh.late, seventh.alarm) == (1, None)

    story.arrive("h1", "h2", "h3", "h4", "h5", "h6", turned=True)
    eighth = story.night(6)
    assert "disagree with the full network; by the table at most" in eighth.alarm
    assert "ALARM" in nights.log()[-1]

    story.arrive("i1", "i2", turned=True)
    ninth = story.night(6)
    assert (ninth.policy_version, ninth.cost) == (1, ninth.full_cost)

    turned = turned_by_a_quarter(story.parts["table"])
    write_shards(story.folder / "labelled", "turned", turned)
    again = story.policy("again", str(story.folder / "labelled/*.tar"))
    assert nights.publish(again, force=False).version.number == 3
    story.arrive("j1")
    story.arrive("j2", turned=True)
    tenth = story.night()
    assert (tenth.policy_version, tenth.alarm) == (3, None)

    check_against_undisturbed_runs(story, first, again)
    page = (nights.output / "_nights.html").read_text()
    assert '<td class="text">0008</td>' in page
    assert page.count("resumed") == 1


def check_against_undisturbed_runs(story: Story, first: str, again: str) -> None:
    """Labels, trails and statuses are those of one run over the whole corpus, policy by policy."""
    bundle = read_bundle(first)
    full = str(story.folder / "full")
    write_bundle(full, replace(bundle, policy=always(bundle.policy.graph, "medium")))
    runs = {
        (1, False): undisturbed(story, first, "by-first"),
        (1, True): undisturbed(story, full, "by-full"),
        (3, False): undisturbed(story, again, "by-again"),
    }
    manifest = story.nights.manifest()
    counts: Counter[tuple[int, bool]] = Counter()
    found = said(story.nights.rows())
    for shard, night in manifest["night_of"].items():
        marker = story.nights.output / manifest["files"][f"{shard}.json"]["at"]
        after = json.loads(marker.read_text())["after_alarm"]
        by = (manifest["nights"][night]["policy_version"], after)
        counts[by] += 1
        assert {key: found[key] for key in story.wanted[shard]} == {
            key: runs[by][key] for key in story.wanted[shard]
        }
    assert counts.total() == len(story.wanted)
    assert counts[1, False] >= 17
    assert counts[1, True] >= 2
    assert counts[3, False] == 2
