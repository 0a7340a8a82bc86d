"""Commits and deliveries on a failing disk, each repeated until it works.

    python commit_cycles.py STATE_DIR

Prints as JSON the final content of the state file, the delivered notifications and the number of failures.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.delivery.worker import Worker
from watchdog.errors import StoreError
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import factories

TICKS = 20
MAX_TRIES = 5


class Receiver:
    name = "oncall"
    rate_limit = None
    timeout_seconds = 10.0
    joins_copies = False
    send_resolved = True
    source = None

    def __init__(self):
        self.ids = []

    def send(self, notification, deadline_seconds):
        self.ids.append(notification.id)


def make_notification(number):
    alert = factories.make_alert(fingerprint=f"{number:016x}", summary="x" * 3_000)
    return factories.make_notification(alert, id=f"n{number}", group_key=f"rule{number}")


def retry(action):
    """Return the result of `action` and the number of failures before."""
    for failures in range(MAX_TRIES):
        try:
            return action(), failures
        except StoreError:
            pass
    raise SystemExit("the action failed at each try")


def main():
    logging.basicConfig(level=logging.CRITICAL)
    clock, receiver = SystemClock(), Receiver()
    store, failed = retry(lambda: Store(Path(sys.argv[1]), clock, "boot1"))
    worker = Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("commit_cycles"))
    for tick in range(TICKS):
        changes = {
            "alerts": [(f"f{tick % 3}", {"n": tick}), (f"f{(tick + 1) % 3}", None)],
            "groups": [(("oncall", f"rule{tick % 3}"), {"n": tick})],
            "notifications": [make_notification(tick)],
        }
        try:
            store.commit(**changes)
        except StoreError:
            failed += 1
        if tick % 7 == 6:
            _, failures = retry(store.database.checkpoint)
            failed += failures
        failed += retry(worker.deliver_due)[1]
    failed += retry(lambda: store.commit(alerts=[], groups=[], notifications=[]))[1]
    failed += retry(worker.deliver_due)[1]
    saved, failures = retry(store.load)
    failed += failures
    store.close()
    print(
        json.dumps(
            {
                "alerts": saved.alerts,
                "groups": saved.groups,
                "delivered": receiver.ids,
                "quarantined": len(store.quarantined),
                "failed": failed,
            }
        )
    )


if __name__ == "__main__":
    main()
