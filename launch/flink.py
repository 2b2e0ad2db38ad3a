"""The preset for a Flink cluster, through Beam's portable runner, and how its jobs are ended."""

import json
import logging
import urllib.request
import uuid
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

from launch.cluster import check_environment, check_jar, has_endpoint
from pipelines.places import Runner
from policy.errors import InputError

_LOG = logging.getLogger("adalabel")

ANSWER_SECONDS = 5.0
"""So long the JobManager may take to answer when a job is to be cancelled."""

_NO_ANSWER = (OSError, HTTPException, ValueError, LookupError, TypeError)
"""What comes of a server that is not there, speaks no HTTP, or no JSON of the JobManager's form."""

_AUTOMATIC = ("[auto]", "[local]", "[collection]")


def flink(runner: Runner) -> list[str]:
    """Beam's flags for a Flink cluster whose addresses the user gives.

    Raises InputError where one is missing: a cluster is never started and nothing is downloaded.
    """
    flags = runner.beam_flags
    check_environment(flags)
    if not has_endpoint(flags):
        asked = PipelineOptions(list(flags)).view_as(FlinkRunnerOptions)
        if asked.flink_master in _AUTOMATIC:
            raise InputError(
                "--flink_master is not given; wanted --flink_master=HOST:PORT, where the "
                "JobManager's REST interface listens (Flink's default is port 8081)"
            )
        artifact = "beam-runners-flink-VERSION-job-server, VERSION the cluster's"
        check_jar("flink_job_server_jar", asked.flink_job_server_jar, artifact)
    return [
        "--runner=apache_beam.runners.portability.flink_runner.FlinkRunner",
        f"--parallelism={runner.workers}",
        f"--job_name=adalabel-{uuid.uuid4().hex[:12]}",
        "--default_sdk_harness_log_level=ERROR",
    ]


def cancel(flags: Sequence[str]) -> None:
    """Cancel the job of these flags in its cluster; Beam's job server leaves it running.

    Says so where the cluster cannot be asked: the job then goes on, and what it does is not lost.
    """
    options = PipelineOptions(list(flags))
    name = options.view_as(GoogleCloudOptions).job_name
    master = options.view_as(FlinkRunnerOptions).flink_master
    if master in _AUTOMATIC:
        _LOG.warning("without --flink_master, job %s is left to its job server", name)
        return
    jobs = f"{master if '://' in master else f'http://{master}'}/jobs"
    try:
        for job in _answer(f"{jobs}/overview")["jobs"]:
            if job["name"] == name:
                _answer(f"{jobs}/{job['jid']}?mode=cancel", "PATCH")
    except _NO_ANSWER as error:
        _LOG.warning("job %s could not be cancelled and may go on: %s", name, error)


def _answer(url: str, method: str = "GET") -> Any:  # noqa: ANN401
    request = urllib.request.Request(url, method=method)  # noqa: S310 - the user's JobManager
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
        return json.loads(answer.read() or b"{}")
