"""Check: a receiver that hangs delays no other receiver, and gets its notification later."""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path

from watchdog.clock import SystemClock, boot_id
from watchdog.delivery.delivery import Delivery
from watchdog.kernel import privileges
from watchdog.routing.notification import Notification
from watchdog.selftest.context import CheckContext, make_notification, wait_until, webhook_receivers
from watchdog.selftest.result import CheckFailed, require
from watchdog.selftest.webhook_server import WebhookServer
from watchdog.state.store import Store

NOTIFICATION_COUNT = 30
MAX_DELAY_SECONDS = 3.0  # a receiver that waited for the other would need ten seconds

_PATIENCE_SECONDS = 12.0


def run_check(context: CheckContext) -> str:
    """Notify one receiver while the other hangs, then let the other answer; return the figures.

    Raises:
        CheckFailed: the good receiver was delayed, or the other got no notification, or one with another id.
    """
    privileges.keep_only_capabilities(())
    hung, good = WebhookServer(hangs=True), WebhookServer()
    try:
        return notify_both(context.folder, hung, good)
    finally:
        hung.close()
        good.close()


def notify_both(folder: Path, hung: WebhookServer, good: WebhookServer) -> str:
    """Deliver to both through the real outbox and webhooks; return the figures."""
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhook_receivers(folder, {"hung": hung.url, "good": good.url})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    try:
        first = make_notification(0, "hung")
        _commit(store, delivery, first)
        require(wait_until(lambda: hung.arrivals, _PATIENCE_SECONDS), "no connection to the receiver that hangs")
        delays = [_delay(store, delivery, good, number) for number in range(NOTIFICATION_COUNT)]
        detail = f"while one receiver hung, {NOTIFICATION_COUNT} notifications reached the other"
        detail += f", p50 {_ms(statistics.median(delays))}, max {_ms(max(delays))}"
        require(max(delays) <= MAX_DELAY_SECONDS, detail)
        require(hung.notification_ids() == [first.id], f"{detail}; but the first one did not hang")
        hung.is_answering.set()
        repeated = wait_until(lambda: len(hung.arrivals) > 1, _PATIENCE_SECONDS)
        require(repeated, f"{detail}; the notification of the one that hung was not sent again afterwards")
        require(set(hung.notification_ids()) == {first.id}, f"{detail}; the one that hung got another notification_id")
        return f"{detail}; afterwards the one that hung got its notification too, with the same id"
    finally:
        hung.is_answering.set()
        delivery.stop(1.0)
        store.close()


def _commit(store: Store, delivery: Delivery, notification: Notification) -> None:
    store.commit(alerts=[], groups=[], notifications=[notification])
    delivery.wake_workers()


def _delay(store: Store, delivery: Delivery, good: WebhookServer, number: int) -> float:
    notification = make_notification(number, "good")
    began = time.monotonic()
    _commit(store, delivery, notification)
    if not wait_until(lambda: notification.id in good.notification_ids(), _PATIENCE_SECONDS):
        raise CheckFailed(
            f"while one receiver hung, a notification to the other took more than {_PATIENCE_SECONDS:g} s"
        )
    return (
        next(arrival.monotonic_seconds for arrival in good.arrivals if arrival.notification_id == notification.id)
        - began
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
