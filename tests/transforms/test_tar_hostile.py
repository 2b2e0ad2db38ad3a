import gzip
import io
import tarfile
from pathlib import Path

import pytest
import tiny

from transforms.shards import read_records, tar, tar_members
from transforms.shards.inflate import Inflated
from transforms.shards.record import Record

END = bytes(1024)


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def read(content: bytes) -> list[Record]:
    records = list(tar.read(io.BytesIO(content)))
    assert tar.count(io.BytesIO(content)) == len(records)
    return records


def test_interleaved_members_are_rejected_with_the_reason_and_give_no_wrong_label(
    tmp_path: Path,
) -> None:
    members = [("a.jpg", b"A"), ("b.jpg", b"B"), ("a.cls", b"1"), ("b.cls", b"2")]
    shard = tiny.shard("s", tiny.write_tar(tmp_path / "s.tar", members))
    records = list(read_records(shard))
    assert [(r.status, r.label) for r in records[:2]] == [("ok", None)] * 2
    assert [record.status for record in records[2:]] == ["duplicate"] * 2
    assert "members of one key must be consecutive" in str(records[2].error)


def test_two_images_of_one_key_are_ambiguous_and_the_same_one_twice_is_another_record() -> None:
    (two,) = read(member("a.jpg") + member("a.png") + END)
    assert two.status == "ambiguous"
    assert "2 images of one key: jpg, png (at byte 0)" in str(two.error)
    assert len(read(member("a.jpg") + member("a.jpg") + END)) == 2


def test_a_label_that_is_a_link_is_not_followed() -> None:
    (record,) = read(member("a.jpg") + member("a.cls", b"", tarfile.SYMTYPE) + END)
    assert record.label_error == "the label is a symbolic link, never followed"


def test_a_name_beyond_any_path_is_rejected() -> None:
    content = member("././@LongLink", b"n" * 5000 + b".jpg\0", tarfile.GNUTYPE_LONGNAME)
    (record,) = read(content + member("short.jpg") + END)
    assert (record.key, record.status) == ("#0", "name")
    assert "name too long" in str(record.error)
    assert len(str(record.error)) <= 400


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_of_absurd_size_is_refused_before_it_is_read(kind: bytes) -> None:
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, 1 << 40
    whole, lost = read(member("a.jpg") + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert whole.image == b"x"
    assert "the headers of one member take more than 262144 bytes" in str(lost.error)


def test_headers_that_announce_headers_without_end_are_damage() -> None:
    chain = member("h", b"", tarfile.XHDTYPE) * 600
    assert read(chain + member("a.jpg") + END)[-1].status == "container"


def test_global_headers_cannot_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_GLOBAL_FIELDS", 0)
    content = member("g", b"12 comment=x\n"[:12] + b"\n", tarfile.XGLTYPE)
    found = read(content.replace(b"12 comment=x\n", b"13 comment=x\n") + member("a.jpg") + END)
    assert "fields in global headers" in str(found[-1].error)


def test_members_without_end_are_cut_off_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_RECORDS", 2)
    records = read(b"".join(member(f"{n}.jpg") for n in range(9)) + END)
    assert [record.status for record in records] == ["ok", "ok", "container"]
    assert "more than 2 members; split the shard" in str(records[-1].error)


def test_a_gzip_bomb_is_stopped_and_what_came_before_it_is_kept() -> None:
    bomb = member("a.jpg") + member("b.txt", bytes(60 << 20)) + END
    whole, *rest = read(gzip.compress(bomb))
    assert whole.image == b"x"
    assert "inflates to more than 100 times its size" in str(rest[-1].error)


def test_the_checksum_of_gzip_is_checked() -> None:
    packed = bytearray(gzip.compress(member("a.jpg") + END))
    packed[-8] ^= 1
    assert "CRC check failed" in str(read(bytes(packed))[-1].error)


def test_an_inflated_file_does_not_go_back() -> None:
    file = Inflated(io.BytesIO(gzip.compress(b"abc")))
    assert file.read(2) == b"ab"
    with pytest.raises(ValueError, match="gzip: cannot go back to byte 0"):
        file.seek(0)
