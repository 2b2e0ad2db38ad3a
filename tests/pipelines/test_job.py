"""The job file: read with its paths made absolute, and refused where it is not exactly one."""

import re
from pathlib import Path

import pytest

from pipelines.fit import FitOptions
from pipelines.job import AuditTable, read_job
from pipelines.options import RunOptions
from pipelines.places import Runner
from policy.errors import InputError

TEXT = """
networks = "networks.toml"
policies = "gs://bucket/policies"
input    = ["corpus/*.tar", "/late/*.tar"]
output   = "labels/"
[run]
batch-size = 8
workers = 2
beam = ["--job_name=night"]
[audit]
fraction = 0.5
on-alarm = "full"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "job.toml"
    path.write_text(text)
    return str(path)


def test_paths_are_relative_to_the_files_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    path = written(tmp_path / "jobs", TEXT)
    monkeypatch.chdir(tmp_path)
    job = read_job("jobs/job.toml")
    assert job == read_job(path)
    assert job.networks == f"{tmp_path}/jobs/networks.toml"
    assert job.policies == "gs://bucket/policies"
    assert job.input == (f"{tmp_path}/jobs/corpus/*.tar", "/late/*.tar")
    assert job.output == f"{tmp_path}/jobs/labels"


def test_the_run_table_has_the_options_of_a_run_and_beams_own_flags(tmp_path: Path) -> None:
    job = read_job(written(tmp_path, TEXT))
    assert job.run.runner == Runner("local", 2, ("--job_name=night",))
    assert RunOptions(**job.run.options) == RunOptions(batch_size=8, workers=2)
    assert job.audit == AuditTable(fraction=0.5, on_alarm="full")


def test_a_job_on_dataflow_keeps_its_accelerator(tmp_path: Path) -> None:
    gpu = "type:nvidia-l4;count:1"
    run = f'on = "dataflow"\ndevice = "cuda"\naccelerator = "{gpu}"\n'
    job = read_job(written(tmp_path, TEXT.partition("[run]")[0] + "[run]\n" + run))
    assert job.run.runner == Runner("dataflow", 1, accelerator=gpu)


def test_without_tables_a_job_stops_at_an_alarm(tmp_path: Path) -> None:
    job = read_job(written(tmp_path, TEXT.partition("[run]")[0]))
    assert job.run.options == RunOptions().__dict__
    assert job.audit == AuditTable(fraction=0.01, on_alarm="stop")


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        ("batch-size", "batch-sise", "run.batch-sise: Unexpected keyword argument (found '8')"),
        ("= 8", '= "8"', "run.batch-size: Input should be a valid integer (found '8')"),
        ("= 8", "= 0", "--batch-size 0: wanted at least 1"),
        ("batch-size = 8", 'mode = "overwrite"', "run.mode: is for the command line; leave it out"),
        ("batch-size = 8", "json = true", "run.json: is for the command line; leave it out of"),
        ('networks = "networks.toml"', "", "networks: Field required"),
        ("[run]", "nightly = 1\n[run]", "nightly: Unexpected keyword argument (found '1')"),
        ("0.5", "1.5", "audit.fraction 1.5: wanted 0 (no audit) to 1 (every image)"),
        ('"full"', '"shout"', "audit.on-alarm: Input should be 'warn', 'full' or 'stop'"),
        ('["corpus/*.tar", "/late/*.tar"]', "[]", "input: no shards; wanted paths or globs, such"),
        ("[run]", "[run", "not valid TOML: "),
    ],
)
def test_what_is_not_exactly_a_job_is_refused(
    tmp_path: Path, found: str, instead: str, message: str
) -> None:
    path = written(tmp_path, TEXT.replace(found, instead, 1))
    with pytest.raises(InputError, match=re.escape(f"{path}: {message}")):
        read_job(path)


def test_a_missing_job_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"/no/job.toml: the job file cannot be read: "):
        read_job("/no/job.toml")


REFIT = """
[refit]
input = ["labelled/*.tar"]
table = "table/"
costs = "costs.json"
method = "dag"
max-loss = 0.01
confidence = 0.95
"""


def test_the_refit_table_has_the_options_of_a_fit(tmp_path: Path) -> None:
    refit = read_job(written(tmp_path, TEXT + REFIT)).refit
    assert refit is not None
    assert refit.input == (f"{tmp_path}/labelled/*.tar",)
    assert refit.options("p") == FitOptions(
        table=f"{tmp_path}/table",
        policy="p",
        costs=f"{tmp_path}/costs.json",
        method="dag",
        max_loss=0.01,
        confidence=0.95,
    )
    assert read_job(written(tmp_path, TEXT)).refit is None


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        ("confidence = 0.95", "", "refit.max-loss and refit.confidence: only a policy with a prov"),
        ("max-loss = 0.01", "budget = 2.0", "--confidence says how sure to be of a --max-loss"),
        ('table = "table/"', "", "refit.table: Field required"),
        ('["labelled/*.tar"]', "[]", "refit.input: no shards; wanted paths or globs: ["),
        ('"dag"', '"magic"', "refit.method"),
        ("[refit]", '[refit]\npolicy = "p"', "refit.policy: is for the command line; leave it out"),
        ("[refit]", "[refit]\njson = true", "refit.json: is for the command line; leave it out"),
        ("[refit]", "[refit]\ntest-share = 0.0", "refit.test-share 0: policies are compared on"),
    ],
)
def test_what_is_no_refit_table_is_refused(
    tmp_path: Path, found: str, instead: str, message: str
) -> None:
    path = written(tmp_path, TEXT + REFIT.replace(found, instead, 1))
    with pytest.raises(InputError, match=re.escape(message)):
        read_job(path)
