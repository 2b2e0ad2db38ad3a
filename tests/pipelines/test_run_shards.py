"""What a worker raises for the user reaches the user, with its exit code."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tiny

from launch.runners import local
from pipelines.run_shards import as_raised, pipeline_of, run_shards
from policy.errors import InputError
from transforms.careful import DeviceLost
from transforms.commit import Output
from transforms.shards import ImageFile, Promise, Shard
from transforms.shards.listed import listed


class Raises(beam.DoFn):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def process(self, shard: Shard) -> None:
        del shard
        raise self.error


def run(transform: Any, shards: dict[Shard, int], folder: Path) -> None:
    output = Output(str(folder / "out"), "ours")
    run_shards(transform, shards, output, (output.path, ".json"), local(1))


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
        run(beam.ParDo(Raises(error)), shards, tmp_path)
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
        run(beam.ParDo(Raises(ValueError("a bug"))), shards, tmp_path)
    bug = RuntimeError("Traceback\n  x\nValueError: policy.errors.InputError: no")
    assert as_raised(bug) is bug


class Writes(beam.DoFn):
    """Writes all that it gets to know of a shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(self, shard: Shard) -> None:
        (self.folder / f"{shard.name}.txt").write_text(repr(shard))


def test_workers_get_all_that_is_known_of_each_shard_from_the_list(tmp_path: Path) -> None:
    shards = [
        Shard(f"s{n}", f"gs://b/s {n}\n\udcff.tar", n, 0.1 + n, (), Promise(n, "ab"))
        for n in range(50)
    ]
    files = (ImageFile("a.png", 3, 1.5, "a.cls"), ImageFile("b.png", 4, 0.0))
    shards.append(Shard("folder", "x", 7, 1.7e9 + 1 / 3, files))
    run(beam.ParDo(Writes(tmp_path)), dict.fromkeys(shards, 1), tmp_path)
    for shard in shards:
        assert (tmp_path / f"{shard.name}.txt").read_text() == repr(shard)


def test_a_pipeline_does_not_grow_with_its_shards(tmp_path: Path) -> None:
    transform = beam.ParDo(Writes(tmp_path))
    sizes = []
    for n in (1, 100_000):
        shards = (Shard(f"{number:08d}", f"gs://b/{number:08d}.tar", 1, 1.0) for number in range(n))
        path = Output(str(tmp_path / "out"), f"run{n:06d}").keep("shards.jsonl", listed(shards))
        proto = pipeline_of(transform, path, local(1)).to_runner_api()
        sizes.append(proto.ByteSize())
    assert abs(sizes[1] - sizes[0]) < 100
    assert sizes[1] < 20_000
