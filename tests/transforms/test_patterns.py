from pathlib import Path

import pytest

from policy.errors import InputError
from transforms.shards import match_shards


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("pipe:cat x.tar", "pipe: is not read"),
        ("http://host/x.tar", "http: is not read; wanted a local path .* gs://, s3://"),
        ("gs:x.tar", "gs: is not read"),
        ("file:///tmp/x.tar", "give a plain path, without file://"),
        ("|cat x.tar", "commands are never run"),
        ("cat x.tar|", "commands are never run"),
        ("a\x1b[31m.tar", r"control character '\\x1b' in a path"),
        ("x" * 5000, "longer than 4096 bytes"),
    ],
)
def test_what_is_no_path_is_refused_wherever_it_is_given(
    pattern: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=why):
        match_shards([pattern])
    (tmp_path / "list.txt").write_text(f"\n{pattern}\n")
    with pytest.raises(InputError, match=f"list.txt, line 2.*{why}"):
        match_shards([str(tmp_path / "list.txt")])


def test_a_binary_list_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\n\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"line 3: not UTF-8, so this is no list of shards"):
        match_shards([str(tmp_path / "list.txt")])


def test_a_huge_list_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "list.txt").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="a list of shards has at most"):
        match_shards([str(tmp_path / "list.txt")])
