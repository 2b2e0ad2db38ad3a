import pytest

from transforms.shards.record import Record, labelled


@pytest.mark.parametrize(("text", "label"), [(b"0", 0), (b" 17\n", 17), (b"999999999", 999999999)])
def test_a_label_is_decimal_text(text: bytes, label: int) -> None:
    assert labelled(Record("a", b"x"), text) == Record("a", b"x", label)


@pytest.mark.parametrize("text", [b"", b"-1", b"1.0", b"cat", b"1 2", b"9" * 10, "\u0661".encode()])
def test_text_that_is_no_class_index_leaves_the_record_unlabelled_and_says_so(text: bytes) -> None:
    record = labelled(Record("a", b"x"), text)
    assert record.label is None
    assert record.status == "ok"
    assert record.label_error == f"label {text!r} is not a class index"


def test_a_long_wrong_label_is_quoted_in_part() -> None:
    assert len(str(labelled(Record("a", b"x"), b"z" * 10_000).label_error)) < 100


def test_no_label_is_no_error() -> None:
    assert labelled(Record("a", b"x"), None) == Record("a", b"x")


def test_a_rejected_record_keeps_its_key_and_drops_its_image() -> None:
    rejected = Record("a", b"x", 3).rejected("decode", "why")
    assert rejected == Record("a", b"", 3, status="decode", error="why")
