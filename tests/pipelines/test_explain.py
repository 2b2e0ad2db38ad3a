"""classify --dry-run and extract --dry-run: true to what a run then does, and without a trace."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from launch import cli
from launch.runners import local, preset
from pipelines import explain_classify, explain_extract
from pipelines.classify import ClassifyOptions, made_by
from pipelines.dry_run import DryRun
from pipelines.extract import ExtractOptions
from pipelines.places import Runner
from pipelines.policy_source import read_policy
from policy.bundle import read_bundle, write_bundle
from policy.costs import Costs
from policy.errors import InputError
from policy.rules import always
from policy.schema import to_json
from transforms.networks_file import read_networks
from transforms.stages import Engine


def tree(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime) for p in folder.rglob("*")}


def classify(world: Any, output: Path, **changes: Any) -> DryRun:
    options = {
        "networks": world.networks,
        "policy": world.policy,
        "input": (world.input,),
        "output": str(output),
        "batch_size": 16,
        "threads": 1,
        "audit_fraction": 0.0,
    }
    return explain_classify.run(ClassifyOptions(**(options | changes)), local(1))


def extract(world: Any, output: Path, **changes: Any) -> DryRun:
    options = {"networks": world.networks, "input": (world.input,), "output": str(output)}
    return explain_extract.run(ExtractOptions(**(options | changes)), local(1))


@pytest.fixture
def costs(world: Any, tmp_path: Path) -> str:
    """Ten milliseconds for every stage, measured on a CPU with one thread at batches of 16."""
    engine = Engine(read_networks(world.networks), "cpu")
    names = [stage.name for stage in engine.graph.stages]
    about = {"device": "CPU tiny, 1 threads", "threads": 1, "batch_size": 16}
    found = Costs("ms", dict.fromkeys(names, 10.0), about, engine.fingerprints)
    (tmp_path / "costs.json").write_text(to_json(found))
    return str(tmp_path / "costs.json")


def test_a_dry_run_of_labelling_writes_nothing_and_tells_all(
    world: Any, tmp_path: Path, costs: str
) -> None:
    found = classify(world, tmp_path / "out", costs=costs, usd_per_hour=36.0)
    assert not (tmp_path / "out").exists()
    assert (found.todo.shards, found.todo.records, found.todo.done) == (3, 126, 0)
    assert found.todo.bytes == sum(p.stat().st_size for p in world.folder.glob("*.tar"))
    evidence = read_bundle(world.policy).evidence
    assert evidence is not None
    assert found.stages == evidence.stages
    first, *others, full = found.quotes
    assert first.cost == pytest.approx(10 * sum(found.stages.values()))
    assert first.seconds == pytest.approx(126 * first.cost / 1e3)
    assert first.usd == pytest.approx(first.seconds / 100)
    assert first.loses == evidence.regret
    assert {other.loses for other in others} == {o.regret for o in evidence.offers}
    assert [other.cost for other in others] == sorted(other.cost for other in others)
    assert (full.name, full.cost, full.loses) == ("always big", 30.0, 0.0)
    assert found.warnings == ()
    assert found.job is None
    assert found.beam_args == tuple(local(1))


@pytest.mark.parametrize("command", ["classify", "extract"])
def test_on_a_cluster_the_job_that_would_be_handed_over_is_told(
    world: Any, tmp_path: Path, command: str
) -> None:
    options: dict[str, Any] = {
        "networks": world.networks,
        "input": (world.input,),
        "output": str(tmp_path / "out"),
        "on": "flink",
    }
    given = ("--job_endpoint=localhost:1", "--environment_type=EXTERNAL")
    flags = preset(Runner("flink", 2, (*given, "--environment_config=localhost:2")))
    found = (
        explain_classify.run(ClassifyOptions(**options, policy=world.policy), flags)
        if command == "classify"
        else explain_extract.run(ExtractOptions(**options), flags)
    )
    assert not (tmp_path / "out").exists()
    assert found.job is not None
    assert (found.job.runner, found.job.shards) == ("FlinkRunner", 3)
    assert ("external", "localhost:2") in {(e.kind, e.what) for e in found.job.environments}
    assert "job for FlinkRunner" in found.text()


def test_without_measured_costs_there_is_no_time_but_a_way_to_get_it(
    world: Any, tmp_path: Path
) -> None:
    found = classify(world, tmp_path / "out")
    evidence = read_bundle(world.policy).evidence
    assert evidence is not None
    assert found.unit == "gmac"
    assert found.quotes[0].cost == pytest.approx(evidence.cost)
    assert found.quotes[0].seconds is None
    assert "adalabel calibrate" in found.warnings[0]
    assert found.quotes[1].name == f"--budget {evidence.offers[0].cost:.4g}"


def test_an_audit_is_counted(world: Any, tmp_path: Path, costs: str) -> None:
    plain = classify(world, tmp_path / "out", costs=costs)
    audited = classify(world, tmp_path / "out", costs=costs, audit_fraction=0.5)
    left = 30 - 10 * sum(plain.stages.get(name, 0) for name in ("decode", "big"))
    left -= 10 * sum(s for name, s in plain.stages.items() if name.startswith("input.24"))
    assert audited.quotes[0].cost - plain.quotes[0].cost == pytest.approx(0.5 * left)
    assert audited.quotes[-1].cost == plain.quotes[-1].cost


def test_what_is_predicted_is_what_a_run_then_does(world: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    world.classify(out, input=(f"{world.folder}/s0.tar",))
    before = tree(out)
    found = classify(world, out)
    assert tree(out) == before
    assert (found.todo.shards, found.todo.done, found.todo.records) == (2, 1, 84)
    assert found.todo.refused is None
    assert world.classify(out).newly_labelled == found.todo.records
    assert classify(world, out).todo.shards == 0
    again = classify(world, out, mode="overwrite")
    assert (again.todo.shards, again.todo.done) == (3, 0)
    retried = classify(world, out, mode="retry-failed")
    assert (retried.todo.shards, retried.todo.records) == (1, 42)  # s1 holds a broken image


def test_it_works_while_a_run_holds_the_output(world: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    world.classify(out, input=(f"{world.folder}/s0.tar",))
    (out / "_lock").write_text("{}")
    (out / "_attempts/other").mkdir(parents=True)
    before = tree(out)
    assert classify(world, out).todo.shards == 2
    assert tree(out) == before


def test_a_result_in_the_making_counts_if_the_run_would_go_on_with_it(
    world: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    world.classify(out)
    options = ClassifyOptions(
        networks=world.networks, policy=world.policy, input=(world.input,), output=str(out)
    )
    makers = made_by(options, read_policy(world.policy))
    (out / "_next").mkdir()
    for name in ("s0.json", "s0.parquet"):
        (out / "_next" / name).write_bytes((out / name).read_bytes())
    (out / "_next/_run.json").write_text(json.dumps({"mode": "overwrite", "made_by": makers}))
    assert classify(world, out, mode="overwrite").todo.shards == 2
    (out / "_next/_run.json").write_text(json.dumps({"mode": "retry-failed", "made_by": makers}))
    assert classify(world, out, mode="overwrite").todo.shards == 3


def test_shards_that_changed_are_counted_and_the_refusal_is_told(
    world: Any, tmp_path: Path
) -> None:
    rng, out = np.random.default_rng(0), tmp_path / "out"
    for name in ("a", "b"):
        tiny.write_tar(tmp_path / f"in/{name}.tar", tiny.image_members(rng, 3))
    world.classify(out, input=(f"{tmp_path}/in/*.tar",))
    tiny.write_tar(tmp_path / "in/a.tar", tiny.image_members(rng, 5))
    found = classify(world, out, input=(f"{tmp_path}/in/*.tar",))
    assert (found.todo.changed, found.todo.shards, found.todo.records) == (1, 1, 5)
    assert "--mode retry-failed" in (found.todo.refused or "")
    again = classify(world, out, input=(f"{tmp_path}/in/*.tar",), mode="retry-failed")
    assert (again.todo.shards, again.todo.refused) == (1, None)


def test_an_output_of_another_policy_is_refused_as_a_run_would_be(
    world: Any, tmp_path: Path
) -> None:
    world.classify(tmp_path / "out")
    with pytest.raises(InputError, match="was made with --topk 5, this run has 2"):
        classify(world, tmp_path / "out", topk=2)
    assert classify(world, tmp_path / "out", topk=2, mode="overwrite").todo.shards == 3


def test_a_policy_that_does_not_say_how_often_its_stages_run_gives_an_upper_bound(
    world: Any, tmp_path: Path, costs: str
) -> None:
    bundle = read_bundle(world.policy)
    assert bundle.evidence is not None
    for name, evidence in (("old", replace(bundle.evidence, stages={}, offers=())), ("own", None)):
        write_bundle(str(tmp_path / name), replace(bundle, evidence=evidence))
        found = classify(world, tmp_path / "out", policy=str(tmp_path / name), costs=costs)
        assert set(found.stages.values()) == {1.0}
        assert [quote.name for quote in found.quotes] == ["this policy", "always big"]
        assert "it takes at most that" in found.warnings[0]


def test_without_the_full_network_no_audit_is_counted(
    world: Any, tmp_path: Path, costs: str
) -> None:
    bundle = read_bundle(world.policy)
    small = replace(
        bundle,
        policy=always(bundle.policy.graph, "small"),
        fingerprints={"small": bundle.fingerprints["small"]},
        evidence=None,
    )
    write_bundle(str(tmp_path / "p"), small)
    found = classify(
        world, tmp_path / "out", policy=str(tmp_path / "p"), costs=costs, audit_fraction=1.0
    )
    assert found.quotes[0].cost == pytest.approx(10 * len(found.stages))


def test_a_gpu_need_not_be_here_to_tell_what_it_would_take(world: Any, tmp_path: Path) -> None:
    assert classify(world, tmp_path / "out", device="cuda").todo.shards == 3


def test_costs_of_other_networks_are_refused(world: Any, tmp_path: Path, costs: str) -> None:
    other = Path(costs).read_text().replace('"small": "', '"small": "0')
    (tmp_path / "other.json").write_text(other)
    for explained in (classify, extract):
        with pytest.raises(InputError, match=r"--costs: .* on network 'small' .*decode_side"):
            explained(world, tmp_path / "out", costs=str(tmp_path / "other.json"))


def test_a_dry_run_of_extraction_counts_every_stage_for_every_record(
    world: Any, tmp_path: Path, costs: str
) -> None:
    found = extract(world, tmp_path / "table", costs=costs)
    assert not (tmp_path / "table").exists()
    assert (found.todo.shards, found.todo.records) == (3, 126)
    (quote,) = found.quotes
    assert quote.name == "small, big"
    assert quote.cost == pytest.approx(10 * len(found.stages))
    assert {"decode", "small.block1", "small", "big"} <= found.stages.keys()


def test_only_the_networks_that_a_table_lacks_are_counted(world: Any, tmp_path: Path) -> None:
    one = world.networks_file(tmp_path / "one", ["small"])
    world.extract(output=str(tmp_path / "table"), networks=one)
    before = tree(tmp_path / "table")
    found = extract(world, tmp_path / "table")
    assert tree(tmp_path / "table") == before
    assert found.quotes[0].name == "big"
    assert "small" not in found.stages
    assert found.todo.shards == 3
    world.extract(output=str(tmp_path / "table"))
    nothing = extract(world, tmp_path / "table")
    assert (nothing.todo.shards, nothing.quotes[0].name, nothing.quotes[0].cost) == (
        0,
        "nothing",
        0.0,
    )


def test_shards_of_a_table_that_changed_are_counted(world: Any, tmp_path: Path) -> None:
    rng, table = np.random.default_rng(0), tmp_path / "table"
    for name in ("a", "b"):
        tiny.write_tar(tmp_path / f"in/{name}.tar", tiny.image_members(rng, 3))
    given = {"input": (f"{tmp_path}/in/*.tar",)}
    world.extract(output=str(table), **given)
    tiny.write_tar(tmp_path / "in/a.tar", tiny.image_members(rng, 5))
    found = extract(world, table, **given)
    assert (found.todo.changed, found.todo.shards, found.todo.records) == (1, 1, 5)
    assert "--mode retry-failed" in (found.todo.refused or "")


@pytest.mark.parametrize("flag", ["--dry-run", "--explain"])
def test_the_commands_run_nothing_when_asked_to_explain(
    world: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
) -> None:
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.setenv(variable, "1000000")
    out = tmp_path / "out"
    given = ["--networks", world.networks, "--input", world.input, "--output", str(out), flag]
    assert cli.main(["extract", *given]) == 0
    assert "dry run of extract; nothing was run" in capsys.readouterr().out
    flags = ["--policy", world.policy, "--json", "--", "--job_name=x"]
    assert cli.main(["classify", *given, *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["todo"]["records"], told["beam_args"][-1]) == (126, "--job_name=x")
    assert not out.exists()
