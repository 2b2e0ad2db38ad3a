import errno

import pytest

from policy.errors import Stopped
from transforms.failures import reasons_given


def test_what_a_file_system_says_names_the_file_and_the_remedy() -> None:
    said = pytest.raises(Stopped, match=r"^out/s0\.json: No space left; .*run the same command")
    with said, reasons_given():
        raise OSError(errno.ENOSPC, "No space left", "out/s0.json")
