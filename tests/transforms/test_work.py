from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tiny
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from numpy.typing import NDArray

from transforms.collect import Blocks
from transforms.prepare import Prepared
from transforms.shard_loop import Placed, Row, ShardLoop
from transforms.shards import Shard, count_records
from transforms.work import ShardFn, WorkerOptions

WORKER = WorkerOptions(batch_size=3, decode_threads=2, threads=0, device="cpu")


@dataclass(frozen=True)
class Said:
    """The keys and statuses of records that were finished together."""

    rows: Sequence[Row]

    def take(self, rows: NDArray[np.intp]) -> "Said":
        return Said([self.rows[row] for row in rows])


class Keys:
    """A step that answers with an image's key, in batches of three that cross shards."""

    later: dict[str, Any] = {}  # noqa: RUF012
    inputs: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.waiting: list[Prepared] = []
        self.written: dict[str, list[Row]] = {}

    def take(self, item: Prepared) -> Iterator[Placed]:
        self.waiting.append(item)
        if len(self.waiting) == 3:
            yield from self.flush()

    def flush(self) -> Iterator[Placed]:
        batch, self.waiting = self.waiting, []
        if batch:
            yield batch, Said([{"key": item.key, "status": "ok"} for item in batch])

    def reject(self, item: Prepared) -> Said:
        return Said([{"key": item.key, "status": item.status}])

    def done(self, shard: Shard) -> dict[str, Any] | None:
        del shard
        return None

    def begin(self, _: Shard) -> bool:
        return True

    def write(self, shard: Shard, blocks: Blocks[Said], started: float) -> dict[str, Any]:
        assert started > 0
        one_by_one = [row for block in blocks.blocks for row in block.rows]
        rows = [one_by_one[place] for place in blocks.place_of]
        assert shard.name not in self.written
        self.written[shard.name] = rows
        return {"shard": shard.name, "keys": [row["key"] for row in rows]}


class Forgetful(Keys):
    """A step that loses an image."""

    def flush(self) -> Iterator[Placed]:
        for batch, block in super().flush():
            kept = np.arange(1, len(batch))
            yield batch[1:], block.take(kept)


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Shards of 4, 0, 2 and 5 records, the last with a broken image and a duplicate."""
    rng = np.random.default_rng(0)
    made = []
    for name, n in (("a", 4), ("empty", 0), ("b", 2), ("c", 3)):
        members = tiny.image_members(rng, n)
        members += [("broken.png", b"x"), ("0000.png", b"y")] if name == "c" else []
        made.append(tiny.shard(name, tiny.write_tar(tmp_path / f"{name}.tar", members)))
    return made


@pytest.mark.parametrize("depth", [0, 1, 100])
def test_every_record_of_every_shard_gets_its_row_in_its_place(
    shards: list[Shard], depth: int
) -> None:
    step = Keys()
    with ThreadPoolExecutor(2) as pool:
        loop = ShardLoop(step, pool, depth)
        done = [found for shard in shards for found in loop.process(shard)]
        done += loop.finish()
    assert sorted(found["shard"] for found in done) == ["a", "b", "c", "empty"]
    for shard in shards:
        assert len(step.written[shard.name]) == count_records(shard)
    assert [row["key"] for row in step.written["a"]] == [f"a/000{i}" for i in range(4)]
    statuses = [row["status"] for row in step.written["c"]]
    assert statuses == ["ok", "ok", "ok", "decode", "duplicate"]


def test_a_shard_is_written_as_soon_as_it_is_whole(shards: list[Shard]) -> None:
    with ThreadPoolExecutor(2) as pool:
        loop = ShardLoop(Keys(), pool, depth=0)
        assert [found["shard"] for found in loop.process(shards[0])] == []
        assert [found["shard"] for found in loop.process(shards[1])] == ["empty"]
        assert [found["shard"] for found in loop.process(shards[2])] == ["a", "b"]


def test_a_step_that_loses_a_record_stops_the_job(shards: list[Shard]) -> None:
    with ThreadPoolExecutor(2) as pool:
        loop = ShardLoop(Forgetful(), pool, depth=1)
        list(loop.process(shards[0]))
        with pytest.raises(RuntimeError, match="shard 'a': 2 rows for 4 records; this is a bug"):
            list(loop.finish())


def test_a_loop_without_shards_writes_nothing() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert list(ShardLoop(Keys(), pool, depth=1).finish()) == []


class Loaded:
    """What is loaded once a process: Shared needs something that can be weakly referenced."""

    decode_side = None


def load(_worker: WorkerOptions) -> Loaded:
    return Loaded()


def make_step(_loaded: Loaded, _worker: WorkerOptions, _pool: Executor) -> Keys:
    return Keys()


@pytest.mark.parametrize("isolate", [False, True], ids=["threads", "processes"])
def test_the_dofn_gives_the_statistics_of_every_shard(shards: list[Shard], isolate: bool) -> None:  # noqa: FBT001
    worker = replace(WORKER, isolate_decode=isolate)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        keys = (
            pipeline
            | beam.Create(shards)
            | beam.ParDo(ShardFn(load, make_step, worker))
            | beam.Map(lambda done: (done["shard"], len(done["keys"])))
        )
        assert_that(keys, equal_to([("a", 4), ("empty", 0), ("b", 2), ("c", 5)]))


class Choosy(Keys):
    """A step that begins no more after two shards."""

    def begin(self, shard: Shard) -> bool:
        return shard.name in ("a", "empty")


def test_what_the_step_does_not_begin_is_left_unread(shards: list[Shard]) -> None:
    step = Choosy()
    with ThreadPoolExecutor(1) as pool:
        loop = ShardLoop(step, pool, 2)
        done = [found for shard in shards for found in loop.process(shard)]
        done += list(loop.finish())
    assert sorted(found["shard"] for found in done) == ["a", "empty"]
    assert step.written.keys() == {"a", "empty"}
