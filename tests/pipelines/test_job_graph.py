"""The job that a run would hand to its runner, as that runner's own code makes it."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tiny
from apache_beam.runners.dataflow.internal import apiclient

from launch.runners import preset
from pipelines import classify, extract
from pipelines.job_graph import JobGraph, job_graph
from pipelines.places import Runner
from pipelines.run_shards import pipeline_of
from policy.errors import InputError

SHARDS = 100_000
LIMIT_BYTES = 10_000_000
IMAGE = "registry/adalabel:1"
L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
FLAGS = (
    "--project=my-project",
    "--region=europe-west4",
    "--temp_location=gs://bucket/tmp",
    f"--sdk_container_image={IMAGE}",
    "--job_name=labels",
)


@pytest.fixture
def networks(tmp_path: Path) -> str:
    return str(tiny.write_networks(tmp_path))


def labelling(networks: str, *more: str) -> JobGraph:
    options = classify.ClassifyOptions(
        networks=networks,
        policy="unused",
        input=("gs://bucket/*.tar",),
        output="gs://bucket/labels",
        on="dataflow",
        workers=20,
        device="cuda",
        accelerator=L4,
        min_ram="16GB",
    )
    runner = options.runner
    flags = preset(Runner(runner.on, runner.workers, (*FLAGS, *more), runner.accelerator))
    return classify.job(options, SHARDS, flags)


def hints_by_step(graph: JobGraph) -> dict[str, dict[str, str]]:
    return {step.name: dict(graph.environments[step.environment].hints) for step in graph.steps}


def test_only_the_step_that_runs_networks_asks_for_a_gpu(networks: str) -> None:
    hints = hints_by_step(labelling(networks))
    assert hints.pop("Label/Label") == {"accelerator": L4, "min_ram_bytes": "16000000000"}
    assert {"Shards", "Label/Spread/AddRandomKeys"} <= hints.keys()
    assert not any(hints.values())


def test_every_step_runs_in_the_image_and_no_code_is_staged(networks: str) -> None:
    graph = labelling(networks)
    images = [place for place in graph.environments if place.kind == "docker"]
    assert {place.what for place in images} == {IMAGE}
    staged = {name for place in images for name in place.artifacts}
    assert staged <= {"submission_environment_dependencies.txt"}


def test_a_job_of_100_000_shards_is_far_below_what_dataflow_takes(networks: str) -> None:
    graph = labelling(networks)
    assert (graph.runner, graph.shards) == ("DataflowRunner", SHARDS)
    assert 0 < graph.bytes < LIMIT_BYTES / 100


def test_flags_are_told_but_for_secrets(networks: str) -> None:
    graph = labelling(networks, "--dataflow_kms_key=k1")
    assert graph.options["max_num_workers"] == "20"
    assert graph.options["sdk_location"] == "container"
    assert graph.options["dataflow_kms_key"] == "(not shown)"
    assert "dry_run" not in graph.options


def test_people_read_steps_by_the_machines_they_run_on(networks: str) -> None:
    text = labelling(networks).text()
    assert text.startswith("job for DataflowRunner: ")
    assert "(here 100,000, in a list that a worker reads)" in text
    assert f"  docker {IMAGE}; machines: accelerator {L4}, min_ram_bytes 16000000000; " in text
    assert "\n    Label/Label\n" in text
    assert "    --max_num_workers=20" in text
    assert "lambda" not in text


def test_extraction_asks_for_the_same(networks: str) -> None:
    options = extract.ExtractOptions(
        networks=networks,
        input=("gs://bucket/*.tar",),
        output="gs://bucket/table",
        on="dataflow",
        min_ram="8GB",
    )
    graph = extract.job(options, SHARDS, preset(Runner("dataflow", 1, FLAGS)))
    assert hints_by_step(graph)["Extract/Extract"] == {"min_ram_bytes": "8000000000"}
    assert graph.bytes < LIMIT_BYTES / 100


@pytest.mark.parametrize(
    ("flags", "runner", "place"),
    [
        ((), "FnApiRunner", ("embedded_python", "on this machine")),
        (
            (
                "--runner=FlinkRunner",
                "--environment_type=EXTERNAL",
                "--environment_config=localhost:50000",
            ),
            "FlinkRunner",
            ("external", "localhost:50000"),
        ),
        (
            (
                "--runner=PortableRunner",
                "--job_endpoint=localhost:8099",
                "--environment_type=PROCESS",
                '--environment_config={"command": "/opt/apache/beam/boot"}',
            ),
            "PortableRunner",
            ("process", "/opt/apache/beam/boot"),
        ),
    ],
)
def test_other_runners_jobs_are_told_alike(
    flags: tuple[str, ...], runner: str, place: tuple[str, str]
) -> None:
    graph = job_graph(beam.Reshuffle(), 3, preset(Runner("local", 1, flags)))
    found = {(place.kind, place.what) for place in graph.environments}
    assert (graph.runner, found) == (runner, {("runner", "itself"), place})


def test_what_beam_refuses_is_told_as_a_flag() -> None:
    flags = preset(Runner("dataflow", 1, (*FLAGS, "--project=No Project")))
    with pytest.raises(InputError, match=r"what comes after -- is refused by Beam: .*Project ID"):
        job_graph(beam.Reshuffle(), 3, flags)


def test_what_is_sent_to_dataflow_says_how_many_machines_and_processes() -> None:
    flags = preset(Runner("dataflow", 5, FLAGS, L4))
    ran: Any = pipeline_of(beam.Reshuffle(), "list", [*flags, "--dry_run=True"]).run()
    sent = apiclient.Environment(
        packages=[],
        options=ran.job.options,
        environment_version="8",
        proto_pipeline_staged_url="gs://bucket/pipeline.pb",
        proto_pipeline=ran.job.proto_pipeline,
    ).proto
    (pool,) = sent.worker_pools
    (image,) = {found.container_image for found in pool.sdk_harness_container_images}
    assert (image, pool.disk_size_gb, pool.autoscaling_settings.max_num_workers) == (IMAGE, 50, 5)
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= set(sent.experiments)
    assert "use_multiple_sdk_containers" not in sent.experiments
