import os
import platform
import subprocess
import sys

import pytest

from launch.memory import keep_freed_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX")

# Fills 200 MB in blocks too large for glibc's default heap twice over, and counts page faults.
FAULTS = """
import resource, sys
from launch.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
bytearray(200 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(200 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variables, and put back afterwards."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@GLIBC
def test_child_processes_inherit_the_settings() -> None:
    assert keep_freed_memory()
    assert os.environ["MALLOC_ARENA_MAX"] == "1"
    assert int(os.environ["MALLOC_MMAP_THRESHOLD_"]) == 1 << 30
    assert int(os.environ["MALLOC_TRIM_THRESHOLD_"]) > 1 << 30


@GLIBC
@pytest.mark.parametrize("variable", VARIABLES)
def test_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "12345")
    assert keep_freed_memory()
    assert os.environ[variable] == "12345"
    assert all(os.environ[other] != "12345" for other in VARIABLES if other != variable)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
    assert not any(variable in os.environ for variable in VARIABLES)


@GLIBC
def test_freed_memory_is_really_kept() -> None:
    faults = {}
    for how in ("leave", "keep"):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < faults["leave"] / 10
