"""For all tests, before any of them imports torch."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that share the cores: the threads of each would wait for those of the others. Also
    # of what they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
