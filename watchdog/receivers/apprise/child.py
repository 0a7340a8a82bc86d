"""The child process of the Apprise receiver: one call of notify() with the arguments on standard input."""

from __future__ import annotations

import json
import logging
import sys

import apprise

from watchdog.receivers.apprise.apprise_receiver import EXIT_NOTIFY_FAILED, EXIT_UNKNOWN_URL


def main() -> int:
    """Notify the services of all known URLs; return the exit code.

    If both apply, a failed service takes precedence over an unknown URL: a failed one can be retried.
    """
    logging.disable()  # log lines of Apprise contain URLs
    call = json.load(sys.stdin)
    services = apprise.Apprise(asset=apprise.AppriseAsset(app_id="bpf-watchdog", app_desc="bpf-watchdog"))
    is_known = [services.add(url) for url in call["urls"]]
    if any(is_known) and not services.notify(
        title=call["title"],
        body=call["body"],
        notify_type=apprise.NotifyType(call["type"]),
        body_format=apprise.NotifyFormat.TEXT,
    ):
        return EXIT_NOTIFY_FAILED
    return 0 if all(is_known) else EXIT_UNKNOWN_URL


if __name__ == "__main__":
    sys.exit(main())
