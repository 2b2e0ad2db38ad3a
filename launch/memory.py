"""Making the C library keep memory that tensors have freed, instead of handing it back at once.

Each activation of a batch is tens of megabytes. glibc maps and unmaps such blocks one by one, and
the kernel zeroes them every time: at 64 images a batch that took two thirds of the time of a
MobileNetV2 (benchmarks/RESULTS.md). One arena matters too, because threads' own arenas are too
small for such blocks and fall back to mapping.
"""

import ctypes
import os
import platform

_LARGEST = 1 << 30
# glibc's mallopt(3) parameters, and the environment variables that set them in child processes
_PARAMETERS = {
    "MALLOC_TRIM_THRESHOLD_": (-1, (1 << 31) - 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, _LARGEST),
    "MALLOC_ARENA_MAX": (-8, 1),
}


def keep_freed_memory() -> bool:
    """Set it for this process and its children; False where the C library is not glibc.

    What the user has set in the environment stands.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    for variable, (parameter, value) in _PARAMETERS.items():
        if variable not in os.environ:
            os.environ[variable] = str(value)
            library.mallopt(parameter, value)
    return True
