"""What policy/ reads and writes in a bucket, through pyarrow's own client."""

from pathlib import Path

import numpy as np
import pytest
import tiny_tables
from gcs import world
from gcs.front import Front
from gcs.world import Place

from policy import files
from policy.errors import InputError, Unavailable
from policy.table import read_table
from policy.table_features import feature_batches
from transforms.commit import existing


def test_a_file_is_written_found_read_and_removed(shelf: str) -> None:
    path = f"{shelf}/deep/er/a b%20[1].json"
    assert not files.exists(path)
    files.write_bytes(path, b"first")
    files.write_bytes(path, b"second")
    assert files.exists(path)
    assert files.read_bytes(path, "the file") == b"second"
    assert existing(shelf, "") == {"deep/er/a b%20[1].json"}, "folders left marks of their own"
    files.delete(path)
    assert not files.exists(path)


def test_what_is_not_there_is_the_users_to_mend(shelf: str) -> None:
    with pytest.raises(
        InputError, match=r"none\.json: the policy cannot be read: (?s:.*)No such file"
    ):
        files.read_bytes(f"{shelf}/none.json", "the policy")


def test_a_bucket_that_does_not_answer_is_nobodys_mistake(
    front: Front, shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "TRY_SECONDS", 1)
    path = f"{shelf}/a.json"
    files.write_bytes(path, b"first")
    again = r"a\.json: {}: .*\. Run the same command again\."
    front.fail(kind="stat", fault="503", count=1000)
    with pytest.raises(Unavailable, match=again.format("cannot be looked for")):
        files.exists(path)
    front.fail(kind="read", fault="503", count=1000)
    with pytest.raises(Unavailable, match=again.format("the policy cannot be read")):
        files.read_bytes(path, "the policy")
    front.fail(kind="write", fault="503", count=1000)
    with pytest.raises(Unavailable, match=again.format("cannot be written")):
        files.write_bytes(path, b"second")
    front.forget()
    assert files.read_bytes(path, "the policy") == b"first"


def test_a_table_whose_bucket_does_not_answer_is_not_damaged(
    front: Front, shelf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tables.write(tmp_path / "table")
    table = f"{world.uploaded(Place(str(tmp_path)), shelf, ['table']).root}/table"
    read = read_table(table)
    rows = np.arange(len(read.keys))
    assert len(list(feature_batches(table, read, "big.block1", rows))) == 3
    monkeypatch.setattr(files, "TRY_SECONDS", 1)
    front.fail(kind="read", fault="503", count=1000, name="answers")
    with pytest.raises(Unavailable, match=r"answers/.*: cannot be read: .*\. Run the same command"):
        read_table(table)
    front.fail(kind="read", fault="503", count=1000, name="features")
    with pytest.raises(Unavailable, match=r"features/.*: cannot be read: .*\. Run the same comman"):
        list(feature_batches(table, read, "big.block1", rows))
