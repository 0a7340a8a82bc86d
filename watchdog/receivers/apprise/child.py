"""What `apprise.py` runs: one notify call, by the order on standard input; the exit code says how it went."""

from __future__ import annotations

import json
import logging
import sys

import apprise

from watchdog.receivers.apprise.apprise_receiver import EXIT_NOTIFY_FAILED, EXIT_UNKNOWN_URL


def main() -> int:
    """Notify what can be notified; of two verdicts, that trying again can help counts more."""
    logging.disable()  # Apprise's words hold URLs
    order = json.load(sys.stdin)
    services = apprise.Apprise(asset=apprise.AppriseAsset(app_id="bpf-watchdog", app_desc="bpf-watchdog"))
    known = [services.add(url) for url in order["urls"]]
    if any(known) and not services.notify(
        title=order["title"],
        body=order["body"],
        notify_type=apprise.NotifyType(order["type"]),
        body_format=apprise.NotifyFormat.TEXT,
    ):
        return EXIT_NOTIFY_FAILED
    return 0 if all(known) else EXIT_UNKNOWN_URL


if __name__ == "__main__":
    sys.exit(main())
