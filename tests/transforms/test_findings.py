import pytest

from policy.errors import InputError, Unavailable
from transforms.findings import Finding, Report, failed, found, named, told, told_by

REPORT = Report(
    'a "host"', (Finding("versions", ok=True, said="all"), failed("gpu", "nö \n", "buy")), -0.5
)


def test_what_was_found_is_said() -> None:
    assert found("a", lambda: "fine", "do") == Finding("a", ok=True, said="fine")


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (InputError("no such"), "no such", 2),
        (Unavailable("lost"), "lost", 5),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied", 2),
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device", 5),
        (OSError("quota"), "quota", 5),
    ],
)
def test_what_is_raised_for_the_user_is_a_failure_with_its_remedy(
    error: Exception, said: str, code: int
) -> None:
    def work() -> str:
        raise error

    assert found("a", work, "do") == Finding("a", ok=False, said=said, remedy="do", exit_code=code)


def test_a_bug_is_no_finding() -> None:
    with pytest.raises(KeyError):
        found("a", lambda: {}["b"], "do")


def test_a_finding_says_where_it_was_made() -> None:
    assert named(Finding("gpu", ok=True, said="one"), "worker").check == "gpu (worker)"


def test_a_report_comes_through_the_text_of_an_error_however_it_is_quoted() -> None:
    text = str(told_by(REPORT))
    assert told(f"RuntimeError: {text!r}\n  at java.lang: {text} [while running 'x']") == [REPORT]
    assert told("no report here") == []


def test_what_is_said_of_a_failure_is_safe_to_print() -> None:
    assert failed("a", "\x1b[2J?token=abc", "do").said == "\\x1b[2J?token=***"
