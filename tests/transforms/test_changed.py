"""A shard that is changed while it is read gives nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from transforms.shards import ReadFailed, Shard, read_records


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    members = tiny.image_members(np.random.default_rng(0), 5)
    return tiny.shard("a", tiny.write_tar(tmp_path / "a[1].tar", members))


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 512)


@pytest.mark.parametrize("change", [longer, Path.touch, Path.unlink])
def test_a_shard_changed_while_it_is_read_stops_the_run(
    shard: Shard, change: Callable[[Path], object]
) -> None:
    records = read_records(shard)
    next(records)
    change(Path(shard.path))
    with pytest.raises(ReadFailed, match=r"a\[1\].tar: changed while it was read: it had \d+ byt"):
        list(records)


def test_a_shard_left_alone_is_read_to_its_end(shard: Shard) -> None:
    assert len(list(read_records(shard))) == 5
