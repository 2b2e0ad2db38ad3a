"""What a worker raises for the user reaches the user, with its exit code."""

from pathlib import Path

import apache_beam as beam
import pytest
import tiny

from launch.runners import local
from pipelines.run_shards import as_raised, run_shards
from policy.errors import InputError
from transforms.careful import DeviceLost
from transforms.shards import Shard


class Raises(beam.DoFn):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def process(self, shard: Shard) -> None:
        del shard
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (DeviceLost("net: cuda is lost: run again"), DeviceLost, 5),
        (InputError("net fails on 8 images in a row"), InputError, 2),
    ],
)
def test_what_a_worker_raises_for_the_user_comes_out_as_it_is(
    tmp_path: Path, error: Exception, kind: type[Exception], code: int
) -> None:
    shards = {tiny.shard("a", tmp_path / "a.tar"): 1}
    with pytest.raises(kind) as caught:
        run_shards(beam.ParDo(Raises(error)), shards, (str(tmp_path), ".json"), local(1))
    assert str(caught.value) == str(error)
    assert caught.value.exit_code == code


def test_what_another_process_raised_is_found_in_the_text_of_its_traceback() -> None:
    text = (
        "Traceback (most recent call last):\n  File x\npolicy.errors.InputError: first\n\n"
        "During handling:\n\ntransforms.careful.DeviceLost: net: cuda:0 is lost: a [while running "
        "'Label-ptransform-7']\n"
    )
    found = as_raised(RuntimeError(text))
    assert (type(found), str(found)) == (DeviceLost, "net: cuda:0 is lost: a")


def test_a_bug_is_raised_as_beam_told_it(tmp_path: Path) -> None:
    shards = {tiny.shard("a", tmp_path / "a.tar"): 1}
    with pytest.raises(Exception, match="a bug"):
        run_shards(beam.ParDo(Raises(ValueError("a bug"))), shards, (str(tmp_path), ".j"), local(1))
    bug = RuntimeError("Traceback\n  x\nValueError: policy.errors.InputError: no")
    assert as_raised(bug) is bug
