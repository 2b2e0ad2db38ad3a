import pytest

from policy.errors import MOST_SHOWN, InputError, Stopped, shown


def test_every_exception_for_the_user_has_an_exit_code_of_its_own() -> None:
    kinds = [kind for kind in Stopped.__subclasses__() if kind.__module__ == Stopped.__module__]
    codes = [InputError.exit_code, *(kind.exit_code for kind in kinds)]
    assert sorted(codes) == [0, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\x1b[31m\n\0", "a\\x1b[31m\\n\\x00"),
        ("\udc80\u202egnp.exe", "\\udc80\\u202egnp.exe"),
        ("gs://me:secret@bucket/x", "gs://***@bucket/x"),
        ("https://x/y?X-Goog-Signature=abc&a=1", "https://x/y?X-Goog-Signature=***&a=1"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (ValueError("token=t0"), "token=***"),
    ],
)
def test_what_is_shown_can_neither_move_the_cursor_nor_tell_a_secret(
    text: object, wanted: str
) -> None:
    assert shown(text) == wanted


def test_long_texts_are_cut() -> None:
    assert len(shown("x" * 10_000)) == MOST_SHOWN
    assert shown("x" * 10_000, 10) == "x" * 9 + "…"
