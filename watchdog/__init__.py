"""bpf-watchdog: an unattended host guard that watches every TCP connection from inside the kernel."""

import os

__version__ = "0.1.0"

# Set before numpy is imported, whatever it was. One thread that adds up arrays needs no pool for linear algebra: that
# costs 30 MB on a large host, and each of its threads would keep the privileges that this one gives up.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
