import errno

import pytest

from policy.errors import InputError, Stopped, Unavailable
from transforms.failures import reasons_given, reasons_told


@pytest.mark.parametrize("kind", [InputError, Unavailable])
def test_where_in_the_pipeline_it_was_raised_is_not_for_the_user(kind: type[Exception]) -> None:
    """Beam adds it, also to an error that comes from a worker in the same process."""
    with pytest.raises(kind, match=r"^no room$"), reasons_told():
        raise kind("no room [while running 'Label/Label']")


def test_what_a_worker_raised_is_found_in_the_text_of_a_runners_error() -> None:
    text = "Traceback:\npolicy.errors.Unavailable: no room [while running 'Label/Label']\n"
    with pytest.raises(Unavailable, match=r"^no room$"), reasons_told():
        raise RuntimeError(text)


def test_any_other_error_of_a_runner_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="a bug"), reasons_told():
        raise RuntimeError("a bug")


def test_what_a_file_system_says_names_the_file_and_the_remedy() -> None:
    said = pytest.raises(Stopped, match=r"^out/s0\.json: No space left; .*run the same command")
    with said, reasons_given():
        raise OSError(errno.ENOSPC, "No space left", "out/s0.json")
