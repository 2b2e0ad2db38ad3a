"""Presets of Beam's flags for each place a run can happen in, and a check of the user's own."""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from policy.errors import InputError


def local(workers: int) -> list[str]:
    """Beam's flags for this machine: in this process, or in `workers` processes of their own.

    The runner is named in full: "DirectRunner" would first try to download another one.
    """
    flags = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    if workers > 1:
        flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return flags


def check_beam_flags(flags: Sequence[str]) -> None:
    """Raise InputError on a flag that no part of Beam knows; Beam itself would ignore it."""
    words = [flag for flag in flags if flag.startswith("-") and not flag.startswith("--")]
    if flags and not flags[0].startswith("--"):
        words.append(flags[0])
    options = PipelineOptions(list(flags))
    asked = options.get_all_options(retain_unknown_options=True, drop_default=True)
    known = PipelineOptions([]).get_all_options()
    unknown = words + [f"--{name}" for name in asked if name not in known]
    if unknown:
        raise InputError(
            f"Beam has no flag {unknown[0]!r}; what comes after -- goes to Beam as --name=value, "
            "adalabel's own flags come before it"
        )
