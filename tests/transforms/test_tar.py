import io
import tarfile
from itertools import islice

import pytest

from transforms.shards import tar
from transforms.shards.limits import MAX_IMAGE_BYTES
from transforms.shards.record import Record

END = bytes(2 * tarfile.BLOCKSIZE)

IMAGE_FIRST = [
    (f"000{i}.{kind}", body)
    for i in range(3)
    for kind, body in (("png", b"p" * 700), ("cls", b"2"))
]
LABEL_FIRST = [
    (f"000{i}.{kind}", body)
    for i in range(3)
    for kind, body in (("cls", b"2"), ("png", b"p" * 700))
]


def member(name: str, content: bytes, size: int | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def archive(*members: tuple[str, bytes]) -> bytes:
    return b"".join(member(*item) for item in members) + END


def read(content: bytes) -> list[Record]:
    """The records of an archive; checks that they are as many as are counted."""
    records = list(tar.read(io.BytesIO(content)))
    assert tar.count(io.BytesIO(content)) == len(records)
    return records


def test_consecutive_members_of_one_base_name_are_one_record() -> None:
    records = read(archive(("a.cls", b" 3\n"), ("a.png", b"pixels"), ("b.JPG", b"more")))
    assert records == [Record("a", b"pixels", 3), Record("b", b"more")]


def test_an_archive_without_members_has_no_records() -> None:
    assert read(END) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("n01/cat.png", "n01/cat"),
        ("a.b/cat.seg.png", "a.b/cat"),
        ("../../etc/x.png", "../../etc/x"),
    ],
)
def test_names_of_members_are_data(name: str, key: str) -> None:
    assert [record.key for record in read(archive((name, b"x")))] == [key]


def test_a_base_name_ends_at_the_first_dot_so_a_double_extension_is_no_image() -> None:
    (record,) = read(archive(("cat.seg.png", b"x")))
    assert record.status == "no_image"


def test_folders_are_no_members_and_links_are_never_followed() -> None:
    folder, link = tarfile.TarInfo("n01"), tarfile.TarInfo("n01/link.png")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
    content = folder.tobuf() + link.tobuf() + archive(("n01/a.png", b"x"))
    linked, whole = read(content)
    assert (linked.key, linked.status) == ("n01/link", "no_image")
    assert "png (symbolic link, never followed) (at byte 512)" in str(linked.error)
    assert whole == Record("n01/a", b"x")


@pytest.mark.parametrize(
    ("members", "status", "error"),
    [
        ([("a.cls", b"1")], "no_image", "no image among the members of this key: cls"),
        ([("a", b"1")], "no_image", "no extension"),
        ([("a.png", b"")], "ok", None),
    ],
)
def test_a_record_without_an_image_says_so(
    members: list[tuple[str, bytes]], status: str, error: str | None
) -> None:
    (record,) = read(archive(*members))
    assert record.status == status
    assert record.error is None or str(error) in record.error


def test_an_image_beyond_the_limit_is_rejected_unread() -> None:
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.read_bytes += len(content)
            return content

    file = Counting(archive(("a.png", bytes(MAX_IMAGE_BYTES + 1)), ("b.png", b"x")))
    big, small = tar.read(file)
    assert (big.status, big.image) == ("too_large", b"")
    assert str(MAX_IMAGE_BYTES) in str(big.error)
    assert small == Record("b", b"x")
    assert file.read_bytes < 1 << 20


@pytest.mark.parametrize("members", [IMAGE_FIRST, LABEL_FIRST], ids=["png,cls", "cls,png"])
def test_a_tar_cut_off_anywhere_keeps_every_record_before_the_cut(
    members: list[tuple[str, bytes]],
) -> None:
    content = archive(*members)
    complete = read(content)
    ends = [len(archive(*members[: 2 * n + 2])) - len(END) for n in range(3)]
    edges = {edge + near for edge in range(0, len(content), 512) for near in (-1, 0, 1)}
    for position in sorted(edges | set(range(0, len(content), 61))):
        if 0 <= position < ends[-1] + tarfile.BLOCKSIZE:
            records = read(content[:position])
            intact = sum(end <= position for end in ends)
            assert records[:intact] == complete[:intact], position
            assert records[-1].status == "container", position
            assert records[-1].error, position


def test_a_flipped_bit_in_a_header_loses_nothing_before_it_and_is_never_silent() -> None:
    content = archive(*LABEL_FIRST)
    complete = read(content)
    second = len(archive(*LABEL_FIRST[:2])) - len(END)
    for byte in range(second, second + tarfile.BLOCKSIZE):
        flipped = bytearray(content)
        flipped[byte] ^= 1 << (byte % 8)
        records = read(bytes(flipped))
        assert records[0] == complete[0], byte
        assert records == complete or records[-1].status == "container", byte


def test_a_zeroed_page_is_not_taken_for_the_end() -> None:
    content = bytearray(archive(*[(f"{i:03}.png", b"p" * 700) for i in range(30)]))
    content[4096:8192] = bytes(4096)
    records = read(bytes(content))
    assert len(records) < 30
    assert records[-1].status == "container"


def test_a_second_archive_behind_the_first_is_not_lost_silently() -> None:
    records = read(archive(("a.png", b"x")) + archive(("b.png", b"y")))
    assert records[0].image == b"x"
    assert records[1:] == [Record("b", b"y")] or records[-1].status == "container"


@pytest.mark.parametrize("size", [2**40, 2**62, 2**63, 2**70])
def test_a_member_that_claims_to_be_huge_is_damage(size: int) -> None:
    content = member("a.png", b"x") + member("b.png", b"y", size) + END
    records = read(content)
    assert records[0].image == b"x"
    assert "it may be lost" in str(records[0].label_error)
    assert records[-1].status == "container"


@pytest.mark.parametrize("size", [-512, -1024, -2048])
def test_a_member_of_negative_size_does_not_send_the_reader_in_circles(size: int) -> None:
    content = member("a.png", b"x") + member("b.png", b"", size) + END
    found = list(islice(tar.read(io.BytesIO(content)), 20))
    assert len(found) < 20
    assert found[0].image == b"x"
    assert found[-1].status == "container"


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 2000, bytes(100)])
def test_what_is_no_tar_is_one_damaged_record(content: bytes) -> None:
    (record,) = read(content)
    assert record.status == "container"
    assert str(record.error).startswith("tar: ")


def test_a_member_name_that_is_not_utf8_gives_a_key_that_can_be_written() -> None:
    (record,) = read(archive(("caf\udce9.png", b"x")))
    assert record.status == "ok"
    assert record.key.encode()
