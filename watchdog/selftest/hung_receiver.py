"""A receiver that takes the connection and says nothing: no other waits for it, and what it was to be told stays."""

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
MAX_DELAY_SECONDS = 3.0  # a receiver that hung with the other would have waited ten

_PATIENCE_SECONDS = 12.0


def run_check(stage: CheckContext) -> str:
    """Tell one receiver while the other hangs, then let that one go; return what was seen.

    Raises:
        Failed: the good one waited, or the other was never told, or told under another id.
    """
    privileges.keep_only_capabilities(())
    hung, good = WebhookServer(hangs=True), WebhookServer()
    try:
        return notify_both(stage.folder, hung, good)
    finally:
        hung.close()
        good.close()


def notify_both(folder: Path, hung: WebhookServer, good: WebhookServer) -> str:
    """Deliver to both by the real outbox and webhooks."""
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhook_receivers(folder, {"hung": hung.url, "good": good.url})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    try:
        first = make_notification(0, "hung")
        _commit(store, delivery, first)
        require(wait_until(lambda: hung.arrivals, _PATIENCE_SECONDS), "the receiver that hangs was never connected to")
        delays = [_delay(store, delivery, good, number) for number in range(NOTIFICATION_COUNT)]
        seen = f"while one hung, {NOTIFICATION_COUNT} notices reached the other, p50 {_ms(statistics.median(delays))}"
        seen += f", max {_ms(max(delays))}"
        require(max(delays) <= MAX_DELAY_SECONDS, seen)
        require(hung.notification_ids() == [first.id], f"{seen}; but the one that hung was not hanging")
        hung.is_answering.set()
        came = wait_until(lambda: len(hung.arrivals) > 1, _PATIENCE_SECONDS)
        require(came, f"{seen}; what the hung one was to be told was not sent again once it was let go")
        require(set(hung.notification_ids()) == {first.id}, f"{seen}; the hung one was told under another id")
        return f"{seen}; let go, the hung one was told too, under the same id"
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
        raise CheckFailed(f"with one receiver hanging, a notice for the other took over {_PATIENCE_SECONDS:g} s")
    return (
        next(arrival.monotonic_seconds for arrival in good.arrivals if arrival.notification_id == notification.id)
        - began
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
