"""bpf-watchdog: an unattended host guard that watches every TCP connection from inside the kernel."""

import os

__version__ = "0.1.0"

# Must be set before numpy is imported, and overrides the user's value. The daemon adds arrays in one thread and needs
# no pool for linear algebra: the pool takes 30 MB on a large host, and its threads would keep privileges that the main
# thread gives up.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
