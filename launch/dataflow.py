"""Beam's flags for Dataflow: its own image for workers, one process on each machine."""

import re
from collections.abc import Sequence
from importlib.util import find_spec

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    WorkerOptions,
)

from pipelines.places import Runner
from policy.errors import InputError

MPS = "use_nvidia_mps"
"""In --accelerator: processes share the GPU (NVIDIA's Multi-Process Service)."""

_DISK_GB = 50
"""The image has about 9 GB, unpacked about 20; Dataflow's own 25 GB are too few."""

_CLIENTS = ("google.cloud.dataflow", "google_auth_httplib2")
"""Of the extra "dataflow". Without the second, Beam asks for everything without credentials."""

_BUCKET = re.compile(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9](/|$)")

_REMEDIES = {
    "project": "the project that pays",
    "region": "such as europe-west4; it must have the machines and GPUs asked for",
    "temp_location": "a folder of a bucket there, such as gs://bucket/tmp",
    "sdk_container_image": "the workers' image; docs/dataflow.md says how to build it",
}


def dataflow(runner: Runner) -> list[str]:
    """Beam's flags for Dataflow with at most as many machines as there are to be workers.

    The code comes with the image (sdk_location), so that nothing is built or fetched as workers
    start. One bundle at a time runs in a process: it keeps all cores and the GPU busy.
    """
    _check(runner.beam_flags)
    return [
        "--runner=DataflowRunner",
        "--sdk_location=container",
        "--no_save_main_session",
        "--number_of_worker_harness_threads=1",
        f"--max_num_workers={runner.workers}",
        f"--disk_size_gb={_DISK_GB}",
        *_processes(runner.accelerator),
    ]


def _processes(accelerator: str) -> list[str]:
    """Beam's flags for how many processes a machine runs.

    One, with one copy of the networks and all cores, in place of Dataflow's own one for each core;
    but with MPS those share the GPU.
    """
    return [] if MPS in accelerator.split(";") else ["--experiments=no_use_multiple_sdk_containers"]


def _check(flags: Sequence[str]) -> None:
    """Raise InputError, with the remedy, on what Dataflow would refuse or do otherwise."""
    missing = [name for name in _CLIENTS if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--on dataflow needs {missing[0]}, which is not installed here: "
            "pip install '.[dataflow]' in adalabel's source folder"
        )
    options = PipelineOptions(list(flags))
    cloud = options.view_as(GoogleCloudOptions)
    given = {name: getattr(cloud, name) for name in ("project", "region", "temp_location")}
    given["sdk_container_image"] = options.view_as(WorkerOptions).sdk_container_image
    for name, value in given.items():
        if not value:
            raise InputError(f"--on dataflow needs --{name} after --: {_REMEDIES[name]}")
    if not _BUCKET.match(given["temp_location"]):  # or Beam would quietly make a bucket of its own
        raise InputError(f"--temp_location {given['temp_location']}: wanted gs://bucket/folder")
    if any("worker_accelerator" in option for option in cloud.dataflow_service_options or ()):
        raise InputError(
            "--dataflow_service_options=worker_accelerator... gives each machine a GPU, those too "
            "that only read lists; wanted --accelerator before --"
        )
