"""`python -m watchdog`: equivalent to the command `bpf-watchdog`."""

import sys

from watchdog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
