"""Runs one check in its own process and prints one JSON object with `status` and `detail`.

python -m watchdog.selftest NAME FOLDER CONFIG RULES

FOLDER is empty and belongs to the account; CONFIG and RULES are JSON: a path, or null for the default one.
"""

from __future__ import annotations

import importlib
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from watchdog.daemon.configuration import ConfigurationSources, read_configuration
from watchdog.errors import WatchdogError
from watchdog.selftest.context import PROCESS_NAME, CheckContext, set_process_name
from watchdog.selftest.result import CheckFailed, CheckSkipped, CheckStatus
from watchdog.selftest.runner import CHECK_MODULES, CHECK_TIMEOUT_SECONDS


def main(arguments: Sequence[str]) -> int:
    """Run the check, print its result, and return the exit code."""
    name, folder, config, rules = arguments
    signal.alarm(int(CHECK_TIMEOUT_SECONDS) + 5)  # ends this process if its parent is gone
    set_process_name(PROCESS_NAME)
    # The errors that a check provokes are logged as they should be, but the user need not see them.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        context = CheckContext(
            Path(folder), read_configuration(ConfigurationSources(json.loads(config), json.loads(rules)))
        )
        status, detail = CheckStatus.OK, importlib.import_module(CHECK_MODULES[name]).run_check(context)
    except CheckSkipped as error:
        status, detail = CheckStatus.SKIPPED, str(error)
    except (CheckFailed, WatchdogError) as error:
        status, detail = CheckStatus.FAILED, str(error)
    sys.stdout.write(json.dumps({"status": status, "detail": detail}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
