"""The delivery of a daemon in its own process: sends the notifications of a state folder until SIGTERM.

    python sender.py STATE_DIR ATTEMPT_SECONDS SPEED NAME=URL …

Its clock runs SPEED times as fast as real time. The answer to each line of standard input is one line of JSON: the
resident bytes of the process and, by receiver, the pending, delivered and failed notifications.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.config.secrets import Secret
from watchdog.delivery.delivery import Delivery
from watchdog.receivers.base import ReceiverOptions
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.webhook import Webhook
from watchdog.state.store import Store

STOP_SECONDS = 2.5


class FastClock:
    """A clock that can run faster than real time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boottime_ns(self) -> int:
        passed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._began_ns
        return self._began_ns + round(passed_ns * self._speed)

    def wall(self) -> float:
        return time.time()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    folder, attempt_seconds, speed, *receiver_urls = sys.argv[1:]
    logging.disable()
    clock = FastClock(float(speed)) if float(speed) != 1 else SystemClock()
    store = Store(Path(folder), clock, "boot1")
    options = ReceiverOptions(timeout_seconds=float(attempt_seconds))
    receivers = [
        Webhook(name, Endpoint(Secret(url)), None, SystemClock(), options=options)
        for name, url in (text.split("=", 1) for text in receiver_urls)
    ]
    delivery = Delivery(store, receivers, clock, logging.getLogger("sender"))
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def answer() -> None:
        for _ in sys.stdin:
            gc.collect()
            counters = delivery.counters()
            pending = {name: waiting.pending for name, waiting in counters.queues.items()}
            report = {"resident": resident_bytes(), "pending": pending, "sent": dict(counters.delivered)}
            report["failed"] = {f"{name} {reason}": count for (name, reason), count in counters.failed_attempts.items()}
            print(json.dumps(report), flush=True)

    threading.Thread(target=answer, daemon=True).start()
    delivery.start()
    while not stopping.wait(0.02):
        delivery.wake_workers()  # as in each tick
    delivery.stop(STOP_SECONDS)
    os._exit(0)  # ends hanging threads, as the end of the interpreter does


if __name__ == "__main__":
    main()
