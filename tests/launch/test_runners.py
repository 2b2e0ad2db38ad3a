from typing import get_args

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from launch.runners import PRESETS, check_beam_flags, local, preset
from pipelines.places import Place, Runner
from policy.errors import InputError


def test_the_local_preset_runs_a_pipeline() -> None:
    with beam.Pipeline(options=PipelineOptions(local(1))) as pipeline:
        assert type(pipeline.runner).__name__ == "FnApiRunner"
        squares = pipeline | beam.Create([1, 2, 3]) | beam.Map(lambda x: x * x)
        assert_that(squares, equal_to([1, 4, 9]))


@pytest.mark.parametrize(
    ("workers", "mode", "processes"), [(1, "in_memory", 1), (3, "multi_processing", 3)]
)
def test_workers_are_processes_of_their_own(workers: int, mode: str, processes: int) -> None:
    options = PipelineOptions(local(workers)).view_as(DirectOptions)
    assert options.direct_running_mode == mode
    assert options.direct_num_workers == processes


@pytest.mark.parametrize("workers", [1, 2])
def test_the_presets_are_flags_that_beam_knows(workers: int) -> None:
    check_beam_flags(local(workers))


def test_each_place_has_a_preset() -> None:
    assert set(PRESETS) == set(get_args(Place))


def test_a_flag_of_the_user_comes_after_the_preset_s_own() -> None:
    flags = preset(Runner("local", 2, ("--direct_num_workers=3",)))
    assert PipelineOptions(flags).view_as(DirectOptions).direct_num_workers == 3


def test_a_flag_of_the_user_that_beam_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="Beam has no flag '--nosuch'"):
        preset(Runner("local", 1, ("--nosuch",)))


@pytest.mark.parametrize(
    "flags",
    [[], ["--streaming"], ["--job_name=a", "--direct_num_workers", "2"], ["--temp_location=x"]],
)
def test_flags_of_beam_are_let_through(flags: list[str]) -> None:
    check_beam_flags(flags)


@pytest.mark.parametrize(
    ("flags", "unknown"),
    [
        (["--nosuchflag=1"], "--nosuchflag"),
        (["--nosuchflag"], "--nosuchflag"),
        (["--job_name=a", "--nosuchflag", "1"], "--nosuchflag"),
        (["--direct_num_wrokers=2"], "--direct_num_wrokers"),
        (["-x"], "-x"),
        (["--job_name=a", "-x"], "-x"),
        (["stray"], "stray"),
        (["--streaming", "stray"], "stray"),
        (["--job_name=a", "stray"], "stray"),
        (["--batch-size=4"], "--batch"),
    ],
)
def test_a_flag_that_beam_does_not_know_is_refused_by_name(flags: list[str], unknown: str) -> None:
    with pytest.raises(InputError, match=rf"Beam has no flag '{unknown}.*adalabel's own .* before"):
        check_beam_flags(flags)
