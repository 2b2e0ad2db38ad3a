"""Presets of Beam's flags for each place a run can happen in, and a check of the user's own."""

from collections.abc import Callable, Mapping, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from launch.cluster import check_paths, stop_job_server
from launch.dataflow import dataflow
from launch.flink import cancel, flink
from launch.spark import spark
from pipelines.places import Place, Runner
from policy.errors import InputError


def preset(runner: Runner) -> list[str]:
    """Beam's flags for where a run is to happen, the user's own last, as the last one counts.

    Raises InputError on a flag that Beam does not know.
    """
    check_beam_flags(runner.beam_flags)
    return [*PRESETS[runner.on](runner), *runner.beam_flags]


def local(workers: int) -> list[str]:
    """Beam's flags for this machine: in this process, or in `workers` processes of their own.

    The runner is named in full: "DirectRunner" would first try to download another one.
    """
    flags = [
        "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        "--default_sdk_harness_log_level=ERROR",
    ]
    if workers > 1:
        flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return flags


def check(on: Place, options: object) -> None:
    """Raise InputError where a command's options cannot hold in the place where it is to run."""
    if on in ("flink", "spark"):
        check_paths(options)


def abandon(on: Place, flags: Sequence[str]) -> None:
    """End what a run with these flags has going elsewhere, as this process is to end at once."""
    if on == "flink":
        cancel(flags)
    if on in ("flink", "spark"):
        stop_job_server()  # Spark's is the application's driver: its job ends with it


def check_beam_flags(flags: Sequence[str]) -> None:
    """Raise InputError on a flag that no part of Beam knows; Beam itself would ignore it."""
    known = PipelineOptions([]).get_all_options()
    asked = PipelineOptions(list(flags)).get_all_options(
        retain_unknown_options=True, drop_default=True
    )
    unknown = _strays(flags, known) + [f"--{name}" for name in asked if name not in known]
    if unknown:
        raise InputError(
            f"Beam has no flag {unknown[0]!r}; what comes after -- goes to Beam as --name=value, "
            "adalabel's own flags come before it"
        )


def _strays(flags: Sequence[str], known: Mapping[str, object]) -> list[str]:
    """Words that are neither a --flag nor the value of one that takes a value."""
    strays = []
    before = ""
    for word in flags:
        takes_value = before.startswith("--") and "=" not in before
        is_switch = isinstance(known.get(before.removeprefix("--")), bool)
        if not word.startswith("--") and (not takes_value or is_switch):
            strays.append(word)
        before = word
    return strays


def _local(runner: Runner) -> list[str]:
    return local(runner.workers)


PRESETS: dict[Place, Callable[[Runner], list[str]]] = {
    "local": _local,
    "flink": flink,
    "spark": spark,
    "dataflow": dataflow,
}
"""Where a run happens -> what makes Beam's flags for it from what the user asked for."""
