"""What Dataflow needs and is given."""

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)

from launch.dataflow import dataflow
from launch.runners import check_beam_flags, preset
from pipelines.places import Runner
from policy.errors import InputError

GIVEN = (
    "--project=my-project",
    "--region=europe-west4",
    "--temp_location=gs://bucket/tmp",
    "--sdk_container_image=registry/adalabel:1",
)
L4 = "type:nvidia-l4;count:1;install-nvidia-driver"


def given(*more: str, accelerator: str = "") -> PipelineOptions:
    flags = preset(Runner("dataflow", 7, (*GIVEN, *more), accelerator))
    check_beam_flags(flags)
    return PipelineOptions(flags)


def test_code_comes_with_the_image_and_nothing_else_is_staged() -> None:
    options = given()
    setup = options.view_as(SetupOptions)
    assert (setup.sdk_location, setup.save_main_session) == ("container", False)
    assert options.view_as(WorkerOptions).sdk_container_image == "registry/adalabel:1"


def test_a_machine_runs_one_process_with_one_bundle_at_a_time() -> None:
    debug = given(accelerator=L4).view_as(DebugOptions)
    assert debug.lookup_experiment("no_use_multiple_sdk_containers")
    assert debug.number_of_worker_harness_threads == 1


def test_with_mps_processes_share_the_gpu() -> None:
    debug = given(accelerator=f"{L4};use_nvidia_mps").view_as(DebugOptions)
    assert not debug.lookup_experiment("no_use_multiple_sdk_containers")


def test_workers_are_the_most_machines_and_flags_of_the_user_count_more() -> None:
    assert given().view_as(WorkerOptions).max_num_workers == 7
    options = given("--max_num_workers=9", "--disk_size_gb=100").view_as(WorkerOptions)
    assert (options.max_num_workers, options.disk_size_gb) == (9, 100)


def test_experiments_of_the_user_are_added() -> None:
    debug = given("--experiments=use_x").view_as(DebugOptions)
    assert set(debug.experiments) >= {"use_x", "no_use_multiple_sdk_containers"}


@pytest.mark.parametrize("flag", GIVEN)
def test_what_dataflow_needs_is_asked_for_with_the_remedy(flag: str) -> None:
    name = flag.partition("=")[0]
    with pytest.raises(InputError, match=rf"--on dataflow needs {name} after --: \w+"):
        dataflow(Runner("dataflow", 1, tuple(other for other in GIVEN if other != flag)))


@pytest.mark.parametrize("path", ["/local/x", "gs://", "gs://Up/x", "s3://bucket/x"])
def test_a_place_that_is_no_bucket_is_refused_before_beam_makes_one(path: str) -> None:
    with pytest.raises(InputError, match=rf"--temp_location {path}: wanted gs://bucket"):
        dataflow(Runner("dataflow", 1, (*GIVEN, f"--temp_location={path}")))


def test_a_gpu_for_all_machines_is_refused() -> None:
    flag = f"--dataflow_service_options=worker_accelerator={L4}"
    with pytest.raises(InputError, match=r"gives each machine a GPU.*wanted --accelerator"):
        dataflow(Runner("dataflow", 1, (*GIVEN, flag)))


@pytest.mark.parametrize("missing", ["google.cloud.dataflow", "google_auth_httplib2"])
def test_what_is_not_installed_is_named_with_the_remedy(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.dataflow.find_spec", lambda name: None if name == missing else True)
    with pytest.raises(InputError, match=rf"needs {missing}, .*pip install '\.\[dataflow\]' in "):
        given()
