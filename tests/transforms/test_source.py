import errno
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import tiny
from apache_beam.io.filesystems import FileSystems

from transforms.shards import ReadFailed, Shard, read_records
from transforms.shards.source import open_shard


class Failing(io.FileIO):
    """A file on a disk that fails from some byte on."""

    def __init__(self, path: str, good: int) -> None:
        super().__init__(path)
        self.good = good

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        if self.tell() >= self.good:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(min(size, self.good - self.tell()))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self.good < 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().seek(offset, whence)


@pytest.fixture(params=["tar", "parquet"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Shard:
    rng = np.random.default_rng(0)
    if request.param == "tar":
        return tiny.shard("s", tiny.write_tar(tmp_path / "s.tar", tiny.image_members(rng, 200)))
    images = [tiny.image_bytes(rng) for _ in range(200)]
    return tiny.shard("s", tiny.write_parquet(tmp_path / "s.parquet", {"image": images}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_disk_that_fails_stops_the_run_and_is_no_damaged_data(
    shard: Shard, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, **_: object) -> BinaryIO:
        return Failing(path, int(shard.bytes * share))  # type: ignore[return-value]

    monkeypatch.setattr(FileSystems, "open", broken)
    with pytest.raises(ReadFailed, match=r"s.*: reading failed: .*Input/output error"):
        list(read_records(shard))


def test_a_seek_that_fails_stops_the_run(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystems, "open", lambda path, **_: Failing(path, -1))
    with pytest.raises(ReadFailed, match=r"seeking failed: .*Stale"):
        list(read_records(shard))


def test_a_shard_is_read_as_it_lies(shard: Shard) -> None:
    with open_shard(shard.path) as file:
        assert file.read() == Path(shard.path).read_bytes()
