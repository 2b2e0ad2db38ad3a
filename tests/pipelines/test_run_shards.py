"""What a worker raises for the user reaches the user, with its exit code."""

from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import pytest
import tiny
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from apache_beam.runners.dataflow.internal import apiclient

from launch.runners import local, preset
from pipelines import attempts
from pipelines.labels import LABELS
from pipelines.output import opened
from pipelines.places import Runner
from pipelines.run_shards import as_raised, pipeline_of, run_shards
from policy.errors import HandedOver, InputError, Stopped, Unavailable
from transforms.careful import DeviceLost
from transforms.commit import Output
from transforms.shards import ImageFile, Promise, Shard
from transforms.shards.listed import listed, read_list


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


GIVEN = (
    "--project=my-project",
    "--region=europe-west4",
    "--temp_location=gs://bucket/tmp",
    "--sdk_container_image=registry/adalabel:1",
    "--job_name=labels",
)


class Client:
    """Dataflow's, as it is where a template is made: it has the job, and gives none back."""

    jobs: ClassVar[list[Any]] = []

    def __init__(self, options: Any, root: str) -> None:
        del options, root

    def create_job(self, job: Any) -> None:
        self.jobs.append(job)


def test_a_job_that_is_not_waited_for_keeps_what_its_workers_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiclient, "DataflowApplicationClient", Client)
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)
    flags = ("--template_location=gs://bucket/job", "--no_wait_until_finish")
    beam_args = preset(Runner("dataflow", 1, (*GIVEN, *flags)))
    shards = {tiny.shard("a", tmp_path / "a.tar"): 1}
    root = tmp_path / "out"
    with (
        pytest.raises(HandedOver, match=r"handed over.*run the same command without") as caught,
        opened(str(root), "resume", LABELS, {}) as session,
    ):
        run_shards(beam.Reshuffle(), shards, session.output, (str(root), ".json"), beam_args)
    assert caught.value.exit_code == 0
    (job,) = Client.jobs
    assert job.proto_pipeline.ByteSize() < 100_000
    (kept,) = (root / "_attempts").glob("*/shards.jsonl")
    assert [shard.name for shard in read_list(str(kept))] == ["a"]
    monkeypatch.setattr(attempts, "alive", lambda _: False)  # the launcher has ended
    with suppress(Stopped), opened(str(root), "resume", LABELS, {}):
        assert kept.exists()
        raise Stopped("half done")
    assert kept.exists()
    with opened(str(root), "resume", LABELS, {}):
        assert kept.exists()
    assert not kept.exists()  # all is done, so nobody needs it


def test_what_a_service_says_of_itself_is_no_bug_of_ours() -> None:
    found = as_raised(DataflowRuntimeException("State: FAILED, Error: no L4 in this zone", None))
    assert type(found) is Unavailable
    assert str(found).startswith("DataflowRuntimeException: State: FAILED, Error: no L4 in this z")
    assert str(found).endswith("See the job's log, and run the same command again.")
    bug = DataflowRuntimeException("Traceback (most recent call last):\nKeyError: 3", None)
    assert as_raised(bug) is bug
    ours = DataflowRuntimeException("Traceback:\n\npolicy.errors.InputError: not there\n", None)
    assert type(as_raised(ours)) is InputError
