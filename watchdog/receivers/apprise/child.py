"""The child process of the Apprise receiver: one call of notify() per URL, with the arguments on standard input."""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import apprise

from watchdog.receivers.apprise.apprise_receiver import RESULT_PREFIX, ServiceResult

_MAX_THREADS = 16


def main() -> int:
    """Notify the services of all URLs at the same time; print the result of each in one line, in their order."""
    logging.disable()  # log lines of Apprise contain URLs
    call = json.load(sys.stdin)
    with ThreadPoolExecutor(_MAX_THREADS) as threads:
        results = list(threads.map(lambda url: _notify(url, call), call["urls"]))
    sys.stdout.write(f"\n{RESULT_PREFIX}{json.dumps(results)}\n")
    return 0


def _notify(url: str, call: dict[str, str]) -> ServiceResult:
    service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="bpf-watchdog", app_desc="bpf-watchdog"))
    if not service.add(url):
        return ServiceResult.UNKNOWN
    accepted = service.notify(
        title=call["title"],
        body=call["body"],
        notify_type=apprise.NotifyType(call["type"]),
        body_format=apprise.NotifyFormat.TEXT,
    )
    return ServiceResult.ACCEPTED if accepted else ServiceResult.FAILED


if __name__ == "__main__":
    sys.exit(main())
