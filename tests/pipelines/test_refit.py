import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_images
from tiny_refits import JOB, Lab, Seen, with_policy

from launch.cli import main
from pipelines import extract, fit, refit
from pipelines.claim import claimed
from pipelines.promote import rollback
from pipelines.refit import RefitReceipt
from policy.errors import InputError, OutputInUse
from policy.rules import always
from policy.table import read_table

Done = tuple[Lab, RefitReceipt]
Twice = tuple[Lab, RefitReceipt, Seen]


def test_the_first_proved_policy_is_used(first: Done) -> None:
    lab, receipt = first
    assert (receipt.new_shards, receipt.in_use, receipt.promoted) == (("a", "b"), None, True)
    assert receipt.candidate == lab.registry.current()
    assert receipt.reason == "no policy was in use, and its loss is proved"
    (step,) = lab.registry.history()
    assert (step.forced, step.why) == (False, f"refit: {receipt.reason}")
    known = lab.registry.read(lab.registry.versions()[0]).evidence.fitted_on
    assert known.shards.keys() == {"a", "b"}
    assert not (lab.folder / "table" / refit.LOCK).exists()


def test_nothing_new_does_nothing(first: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, _ = first
    monkeypatch.setattr(extract, "run", lambda *_: pytest.fail("extracted"))
    receipt = lab.refit()
    assert (receipt.new_shards, receipt.candidate, receipt.promoted) == ((), None, False)
    assert "no labelled shard is new since the policy in use was fitted: nothing to do" in (
        receipt.text()
    )
    assert len(lab.registry.history()) == 1


def test_a_better_policy_is_put_into_use(second: Twice) -> None:
    lab, receipt, _ = second
    assert (receipt.new_shards, receipt.promoted) == (("c",), True)
    assert receipt.in_use == lab.registry.find("2")
    assert receipt.candidate == lab.registry.current() == lab.registry.find("3")
    found = receipt.comparison
    assert found is not None
    assert found.new_cost < found.old_cost
    assert found.old_loss == 0
    assert found.p_keeps <= 0.1
    assert found.p_cheaper <= 0.05
    assert "less by more than chance" in receipt.reason
    last = lab.registry.history()[-1]
    assert (last.action, last.forced, last.why) == ("publish", False, f"refit: {receipt.reason}")
    assert re.search(r"version 3 \(.*\): now in use: on \d+ new held-out images", receipt.text())
    json.dumps(asdict(receipt), allow_nan=False)


def test_only_the_new_shard_was_extracted(first: Done, second: Twice) -> None:
    for name in ("a", "b"):
        old, new = (
            Path(lab.table, f"answers/big/{name}.parquet").stat().st_mtime_ns
            for lab in (first[0], second[0])
        )
        assert old == new
    assert read_table(second[0].table).shards.keys() == {"a", "b", "c"}


def test_policies_are_compared_on_images_that_neither_was_fitted_on(
    first: Done, second: Twice
) -> None:
    _, receipt, seen = second
    assert receipt.comparison is not None
    assert len(seen.compared) == receipt.comparison.n > 50
    assert len(seen.fitted) > 300
    assert not seen.compared & seen.fitted
    assert not seen.compared & set(read_table(first[0].table).keys)
    assert {key.partition("/")[0] for key in seen.compared} == {"c"}


def test_a_refit_that_is_run_again_after_its_end_does_nothing(
    second: Twice,
) -> None:
    lab, _, _ = second
    before = lab.state()
    assert lab.refit().new_shards == ()
    assert lab.state() == before


@pytest.fixture
def lab(first: Done, tmp_path: Path) -> Lab:
    """After the first refit, free to be changed."""
    return first[0].at(tmp_path / "lab")


def test_a_policy_that_is_no_better_is_stored_and_not_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = lab.registry.read(lab.registry.versions()[0])
    cheapest = always(own.policy.graph, "small.block1.exit")
    lab.put_into_use(with_policy(own, lambda _: cheapest))
    lab.job("max-loss = 0.3", "max-loss = 0.6")  # which the cheapest keeps too
    lab.arrive()
    receipt = lab.refit()
    assert not receipt.promoted
    assert receipt.comparison is None or "not less" in receipt.reason
    assert receipt.candidate == lab.registry.find("3")
    assert lab.registry.current() == lab.registry.find("2")
    assert Path(receipt.candidate.folder, "report.html").is_file()
    assert "not put into use: " in receipt.text()
    before = lab.state()
    monkeypatch.setattr(fit, "run", lambda _: pytest.fail("fitted again"))
    again = lab.refit()
    assert again.candidate == receipt.candidate
    assert again.reason.startswith("was fitted on just this before, with the same options; refit: ")
    assert receipt.reason in again.reason
    assert lab.state() == before


def test_a_version_that_was_rolled_back_is_not_put_into_use_again(
    second: Twice, tmp_path: Path
) -> None:
    lab = second[0].at(tmp_path / "lab")
    rollback(lab.registry, None, "it mistakes newts for yaks")
    receipt = lab.refit()
    assert (receipt.new_shards, receipt.promoted) == (("c",), False)
    assert receipt.candidate == lab.registry.find("3")
    assert lab.registry.current() == lab.registry.find("2")


def test_a_shard_that_was_rewritten_is_extracted_again_and_compares_nothing(lab: Lab) -> None:
    rng = np.random.default_rng(1)
    images = [tiny_images.tinted(rng) for _ in range(150)]
    members = tiny_images.members(images, [int(n) for n in rng.integers(0, 6, 150)])
    rewritten = tiny.write_tar(lab.folder / "b.tar", members)
    lab.job(f"{lab.shards}/b.tar", str(rewritten))
    before = Path(lab.table, "answers/big/b.parquet").read_bytes()
    lab.job("max-loss = 0.3", "max-loss = 0.7")
    receipt = lab.refit()
    assert receipt.new_shards == ("b",)
    assert not receipt.promoted
    assert "the 1 new shards have the names of shards that the policy in use was fitted on" in (
        receipt.reason
    )
    assert Path(lab.table, "answers/big/b.parquet").read_bytes() != before


def test_two_refits_at_once_are_one(lab: Lab) -> None:
    lab.arrive()
    before = lab.state()
    with claimed(f"{lab.table}/{refit.LOCK}"), pytest.raises(OutputInUse, match="_refit: run "):
        lab.refit()
    assert lab.state() == before


def test_who_finds_that_another_policy_came_into_use_meanwhile_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = lab.registry.read(lab.registry.versions()[0])
    decide = refit.decide

    def slow(*given: Any) -> Any:
        lab.put_into_use(with_policy(own, lambda bundle: always(bundle.policy.graph, "small")))
        found = decide(*given)
        return type(found)(promote=True, reason="better than what was in use")

    monkeypatch.setattr(refit, "decide", slow)
    lab.arrive()
    with pytest.raises(OutputInUse, match="another run moved CURRENT meanwhile: it is version 2"):
        lab.refit()
    assert lab.registry.current() == lab.registry.find("2")


def test_the_command_runs_the_job(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refit", "--job", str(lab.folder / "job.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["promoted"], found["candidate"], found["new_shards"]) == (False, None, [])


def test_a_job_without_the_table_is_refused(lab: Lab) -> None:
    options = lab.job(JOB.partition("[refit]")[2].replace("{shards}", str(lab.shards)))
    options = lab.job("[refit]")
    with pytest.raises(InputError, match=r"job.toml: no table \[refit\]; see docs/refit.md"):
        refit.run(options, [])


class Killed(BaseException):
    """Ends a refit as nothing else would."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["extract", "fit", "publish"])
def test_a_refit_that_was_killed_and_is_run_again_ends_as_if_nothing_had_happened(
    first: Done,
    second: Twice,
    tmp_path: Path,
    step: str,
    after: Callable[..., Any],
) -> None:
    lab = first[0].at(tmp_path / "lab")
    own = lab.registry.read(lab.registry.versions()[0])
    lab.put_into_use(with_policy(own, lambda bundle: always(bundle.policy.graph, "big")))
    lab.arrive()
    where = {"extract": (extract, "run"), "fit": (fit, "run"), "publish": (refit, "publish")}[step]
    real = getattr(*where)

    def killed(*given: Any) -> None:
        if after:
            real(*given)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, killed)
        with pytest.raises(Killed):
            lab.refit()
    lab.refit()
    assert lab.state() == second[0].state()
    assert read_table(lab.table).digest == read_table(second[0].table).digest
