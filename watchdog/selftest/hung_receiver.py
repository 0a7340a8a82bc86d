"""A receiver that takes the connection and says nothing: no other waits for it, and what it was to be told stays."""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path

from watchdog.clock import SystemClock, boot_id
from watchdog.delivery.delivery import Delivery
from watchdog.kernel import privileges
from watchdog.routing.notification import Notice
from watchdog.selftest.context import Stage, comes_true, notice_of, webhooks
from watchdog.selftest.result import Failed, demand
from watchdog.selftest.webhook_server import FarEnd
from watchdog.state.store import Store

NOTICES = 30
MOST_DELAY_SECONDS = 3.0  # a receiver that hung with the other would have waited ten

_PATIENCE_SECONDS = 12.0


def rehearse(stage: Stage) -> str:
    """Tell one receiver while the other hangs, then let that one go; return what was seen.

    Raises:
        Failed: the good one waited, or the other was never told, or told under another id.
    """
    privileges.keep_only(())
    hung, good = FarEnd(hangs=True), FarEnd()
    try:
        return tell_both(stage.folder, hung, good)
    finally:
        hung.close()
        good.close()


def tell_both(folder: Path, hung: FarEnd, good: FarEnd) -> str:
    """Deliver to both by the real outbox and webhooks."""
    store = Store(folder / "state", SystemClock(), boot_id())
    receivers = webhooks(folder, {"hung": hung.url, "good": good.url})
    delivery = Delivery(store, receivers.values(), SystemClock(), logging.getLogger(__name__))
    delivery.start()
    try:
        first = notice_of(0, "hung")
        _commit(store, delivery, first)
        demand(comes_true(lambda: hung.arrivals, _PATIENCE_SECONDS), "the receiver that hangs was never connected to")
        delays = [_delay(store, delivery, good, number) for number in range(NOTICES)]
        seen = f"while one hung, {NOTICES} notices reached the other, p50 {_ms(statistics.median(delays))}"
        seen += f", max {_ms(max(delays))}"
        demand(max(delays) <= MOST_DELAY_SECONDS, seen)
        demand(hung.ids() == [first.id], f"{seen}; but the one that hung was not hanging")
        hung.answering.set()
        came = comes_true(lambda: len(hung.arrivals) > 1, _PATIENCE_SECONDS)
        demand(came, f"{seen}; what the hung one was to be told was not sent again once it was let go")
        demand(set(hung.ids()) == {first.id}, f"{seen}; the hung one was told under another id")
        return f"{seen}; let go, the hung one was told too, under the same id"
    finally:
        hung.answering.set()
        delivery.stop(1.0)
        store.close()


def _commit(store: Store, delivery: Delivery, notice: Notice) -> None:
    store.commit(alerts=[], groups=[], notices=[notice])
    delivery.wake()


def _delay(store: Store, delivery: Delivery, good: FarEnd, number: int) -> float:
    notice = notice_of(number, "good")
    began = time.monotonic()
    _commit(store, delivery, notice)
    if not comes_true(lambda: notice.id in good.ids(), _PATIENCE_SECONDS):
        raise Failed(f"with one receiver hanging, a notice for the other took over {_PATIENCE_SECONDS:g} s")
    return next(arrival.at for arrival in good.arrivals if arrival.notification_id == notice.id) - began


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
