"""The preset for a Spark cluster, through Beam's portable runner."""

from apache_beam.options.pipeline_options import PipelineOptions, SparkRunnerOptions

from launch.cluster import check_environment, check_jar, has_endpoint
from pipelines.places import Runner
from policy.errors import InputError


def spark(runner: Runner) -> list[str]:
    """Beam's flags for a Spark cluster whose addresses the user gives.

    Raises InputError where one is missing: a cluster is never started and nothing is downloaded.
    """
    flags = runner.beam_flags
    check_environment(flags)
    if not has_endpoint(flags):
        asked = PipelineOptions(list(flags)).view_as(SparkRunnerOptions)
        if not asked.spark_master_url.startswith("spark://"):
            raise InputError(
                f"--spark_master_url={asked.spark_master_url} is no cluster; wanted "
                "--spark_master_url=spark://HOST:PORT, where the master listens"
            )
        check_jar(
            "spark_job_server_jar", asked.spark_job_server_jar, "beam-runners-spark-3-job-server"
        )
    return [
        "--runner=apache_beam.runners.portability.spark_runner.SparkRunner",
        "--default_sdk_harness_log_level=ERROR",
    ]
