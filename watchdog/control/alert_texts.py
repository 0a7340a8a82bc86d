"""Words about an alert that commands and the status page share."""

from __future__ import annotations


def delivery_mark(notified: str | None, queued: str | None) -> str:
    """Return the mark behind a receiver's name: " (queued)" or " (waits)", "" for one that took a notification.

    `notified`, `queued`: severities as of `AlertReceiver`.
    """
    return "" if notified else " (queued)" if queued else " (waits)"


def format_timer(state: str, hits: str | None, elapsed_seconds: float | None, duration_seconds: float | None) -> str:
    """Return the state of a timer, with the part of its time that has passed: "pending 3s of 10s".

    Arguments as of `TimerStatus`.
    """
    if hits:
        return f"{state} {hits}"
    if duration_seconds is None:
        return state
    return f"{state} {elapsed_seconds or 0:.0f}s of {duration_seconds:g}s"
