"""One rehearsal, in a process of its own: prints one JSON object, `verdict` and `seen`.

python -m watchdog.selftest NAME FOLDER CONFIG RULES

`FOLDER` is empty and the account's; CONFIG and RULES are JSON: a path, or null for the usual place.
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
    """Rehearse, print, and return the exit code."""
    name, folder, config, rules = arguments
    signal.alarm(int(CHECK_TIMEOUT_SECONDS) + 5)  # should nobody be left who would end us
    set_process_name(PROCESS_NAME)
    # What is made to go wrong is complained of, which is right, and nobody's news.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        stage = CheckContext(
            Path(folder), read_configuration(ConfigurationSources(json.loads(config), json.loads(rules)))
        )
        verdict, seen = CheckStatus.OK, importlib.import_module(CHECK_MODULES[name]).run_check(stage)
    except CheckSkipped as error:
        verdict, seen = CheckStatus.SKIPPED, str(error)
    except (CheckFailed, WatchdogError) as error:
        verdict, seen = CheckStatus.FAILED, str(error)
    sys.stdout.write(json.dumps({"verdict": verdict, "seen": seen}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
