from pathlib import Path

import pytest

from policy.errors import InputError
from transforms.files import read_bytes


def test_a_file_of_more_bytes_than_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(str(tmp_path / "f"), "the list", 5) == b"12345"
    with pytest.raises(InputError, match=r"/f: the list has more than 4 bytes; is it another"):
        read_bytes(str(tmp_path / "f"), "the list", 4)
