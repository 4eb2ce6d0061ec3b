"""Two processes share the tests (pytest-xdist, a file each at a time): a thread of torch each."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # read by torch when it is imported, after this
    os.environ.setdefault("OMP_NUM_THREADS", "1")
