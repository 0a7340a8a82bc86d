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

from watchdog.daemon.configuration import Sources, read_setup
from watchdog.errors import WatchdogError
from watchdog.selftest.context import NAME, Stage, take_name
from watchdog.selftest.result import Failed, NotRehearsed, Verdict
from watchdog.selftest.runner import LIMIT_SECONDS, MODULES


def main(arguments: Sequence[str]) -> int:
    """Rehearse, print, and return the exit code."""
    name, folder, config, rules = arguments
    signal.alarm(int(LIMIT_SECONDS) + 5)  # should nobody be left who would end us
    take_name(NAME)
    # What is made to go wrong is complained of, which is right, and nobody's news.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        stage = Stage(Path(folder), read_setup(Sources(json.loads(config), json.loads(rules))))
        verdict, seen = Verdict.OK, importlib.import_module(MODULES[name]).rehearse(stage)
    except NotRehearsed as error:
        verdict, seen = Verdict.NOT_REHEARSED, str(error)
    except (Failed, WatchdogError) as error:
        verdict, seen = Verdict.FAILED, str(error)
    sys.stdout.write(json.dumps({"verdict": verdict, "seen": seen}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
