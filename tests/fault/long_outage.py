"""A receiver outage of one hour, in a process of its own so that its memory can be measured.

    python long_outage.py STATE_DIR

10,000 alerts begin to fire, and 5,000 fire and resolve, while the receiver answers 429; then it works again. Prints
their outcome as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from pathlib import Path

from watchdog.clock import SECOND_NS
from watchdog.delivery.worker import Worker
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.routing.notification import NotificationReason
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import factories

LASTING, SHORT, TICKS = 10_000, 5_000, 100
SECONDS_A_TICK = 36


class Receiver:
    name = "oncall"
    rate_limit = None
    timeout_seconds = 10.0
    joins_copies = False
    send_resolved = True
    source = None

    def __init__(self):
        self.down = True
        self.notifications = []

    def send(self, notification, deadline_seconds):
        if self.down:
            raise DeliveryError(DeliveryErrorReason.RATE_LIMITED, "HTTP 429", retryable=True, retry_after_seconds=30)
        self.notifications.append((notification.group_key, notification.status))


def make_notification(number, kind, resolved=None):
    rule, labels = f"{kind}-{number}", (("process", f"culprit{number}"), ("unit", "crawler.service"))
    alert = factories.make_alert(
        rule=rule, labels=labels, summary=f"culprit{number} opens 612/s connections (limit 500/s)", resolved=resolved
    )
    reason = NotificationReason.FIRST if resolved is None else NotificationReason.RESOLVED
    return factories.make_notification(
        alert, id=f"{rule}-{resolved is not None:d}", reason=reason, host="db1.example.net"
    )


def resident_bytes():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def main():
    logging.basicConfig(level=logging.CRITICAL)
    clock, receiver = factories.FakeClock(), Receiver()
    store = Store(Path(sys.argv[1]), clock, "boot1")
    store.reserve_space()
    worker = Worker(receiver, Outbox(store.database, clock), clock, logging.getLogger("long_outage"))
    before = resident_bytes()
    peak = 0
    for tick in range(TICKS):
        clock.advance(SECONDS_A_TICK)
        lasting = [make_notification(number, "lasting") for number in range(tick, LASTING, TICKS)]
        short = [make_notification(number, "short") for number in range(tick, SHORT, TICKS)]
        store.commit(
            alerts=[(notification.alerts[0].fingerprint, notification.alerts[0].to_json()) for notification in lasting],
            groups=[
                ((notification.receiver, notification.group_key), {"members": [notification.alerts[0].to_json()]})
                for notification in lasting
            ],
            notifications=[*lasting, *short],
        )
        ended = [make_notification(number, "short", resolved=4.0) for number in range(tick, SHORT, TICKS)]
        store.commit(alerts=[], groups=[], notifications=ended)
        worker.deliver_due()
        peak = max(peak, resident_bytes())
    pending = Outbox(store.database, clock).queues()["oncall"].pending
    receiver.down = False
    while (due_ns := worker.deliver_due()) is not None:
        clock.advance(max(0, due_ns - clock.boottime_ns()) / SECOND_NS)
    kinds = Counter((group.split("-")[0], status) for group, status in receiver.notifications)
    document = {
        "growth": peak - before,
        "pending": pending,
        "delivered": {f"{kind} {status}": count for (kind, status), count in kinds.items()},
        "duplicates": len(receiver.notifications) - len(set(receiver.notifications)),
        "lost": {cause: count for (_, cause), count in Outbox(store.database, clock).losses().items()},
    }
    store.close()
    print(json.dumps(document))


if __name__ == "__main__":
    main()
