"""Set before anything imports torch."""

import os

# Threads that spin while they wait make the suite many times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
