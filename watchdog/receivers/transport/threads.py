"""Threads of an attempt: any user of the host can use up the threads that it has."""

from __future__ import annotations

import threading

from watchdog.errors import DeliveryError, DeliveryErrorReason


def start_thread(thread: threading.Thread) -> None:
    """Start `thread`.

    Raises:
        DeliveryError: `connect`: no further thread is allowed, see kernel.threads-max and pids.max.
    """
    try:
        thread.start()
    except RuntimeError:
        raise DeliveryError(
            DeliveryErrorReason.CONNECT, "no further thread can be started on this host", retryable=True
        ) from None
