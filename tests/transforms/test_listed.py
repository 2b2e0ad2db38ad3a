"""What a run's list of shards cannot be."""

from pathlib import Path

import pytest

from policy.errors import InputError, Unavailable
from transforms.shards import Shard
from transforms.shards.listed import listed, read_list

SHARDS = [Shard(f"s{n}", f"s{n}.tar", n, 0.5) for n in range(3)]


def test_shards_come_back_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(listed(SHARDS))
    assert list(read_list(str(tmp_path / "list"))) == SHARDS


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"name": "x"', b'{"name": "x", "more": 1}', b'{"files": 3}']
)
def test_a_line_that_is_no_shard_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "list").write_bytes(listed(SHARDS) + line + b"\n")
    with pytest.raises(Unavailable, match=r"list: line 4 of .* is damaged: .*run the same command"):
        list(read_list(str(tmp_path / "list")))


def test_a_list_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: the run's list of shards cannot be read"):
        list(read_list(str(tmp_path / "none")))
