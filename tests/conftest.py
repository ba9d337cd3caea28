"""Set before anything imports torch."""

import os

# As the command line does, and for the commands that tests start.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# The cores are the test runner's to share out.
os.environ.setdefault("OMP_NUM_THREADS", "1")
