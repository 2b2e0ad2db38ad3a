"""The preset for a Flink cluster, through Beam's portable runner."""

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from launch.cluster import check_environment, check_jar, has_endpoint
from pipelines.options import Runner
from policy.errors import InputError

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
        "--default_sdk_harness_log_level=ERROR",
    ]
