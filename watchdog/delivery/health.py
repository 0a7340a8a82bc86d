"""Whether a receiver takes what it is sent, kept over restarts."""

from __future__ import annotations

import json
from dataclasses import replace

from watchdog.clock import SECOND_NS, Clock, Now, boot_id
from watchdog.delivery.receiver_down import Outage
from watchdog.errors import StoreError
from watchdog.receivers.base import ReceiverState

_KEY = "outage"


class ReceiverHealth:
    """What the newest attempts say of one receiver.

    Written by the receiver's thread, read by others: each attribute is replaced as a whole.
    """

    def __init__(self, memory: ReceiverState, clock: Clock, hang_timeout_seconds: float) -> None:
        """Go on where `memory` ends; an attempt that takes `hang_seconds` counts as failed without having ended."""
        self._memory = memory
        self._clock = clock
        self._hang_ns = round(hang_timeout_seconds * SECOND_NS)
        self._failure = self._remembered()
        self._saved = self._failure is not None
        self._by_refresh = False
        self._attempt: Now | None = None

    @property
    def outage(self) -> Outage | None:
        """Return since when and why nothing reaches the receiver; None while it takes what it is sent."""
        failure, attempt = self._failure, self._attempt
        if failure is None and attempt is not None and self._clock.boottime_ns() - attempt.boottime_ns >= self._hang_ns:
            return Outage(attempt.boottime_ns, attempt.wall, "timeout: an attempt does not end")
        return failure

    def attempt_started(self) -> None:
        """Take note that an attempt begins."""
        self._attempt = Now.read(self._clock)

    def attempt_succeeded(self, *, refresh: bool = False) -> None:
        """Take note that the attempt succeeded; a refresh that did says nothing of notices that failed."""
        self._attempt = None
        if not refresh or self._by_refresh:
            self._failure = None

    def attempt_failed(self, reason: str, *, refresh: bool = False) -> None:
        """Take note that the attempt failed."""
        begin = self._attempt or Now.read(self._clock)
        self._by_refresh = refresh and (self._failure is None or self._by_refresh)
        first = self._failure or Outage(begin.boottime_ns, begin.wall, reason)
        self._failure = replace(first, reason=reason)
        self._attempt = None

    def forget_stale_outage(self, min_age_seconds: float) -> None:
        """Know nothing of the receiver any more if it began to fail `seconds` ago or earlier."""
        if (
            self._failure is not None
            and self._clock.boottime_ns() - self._failure.since_ns >= min_age_seconds * SECOND_NS
        ):
            self._failure = None

    def save(self) -> None:
        """Write down what changed, if it does.

        Raises:
            StoreError: it can't be written; call again later.
        """
        failure = self._failure
        if (failure is not None) == self._saved:
            return
        document = None
        if failure is not None:
            document = {
                "boot_id": boot_id(),
                "since_ns": failure.since_ns,
                "since": failure.since,
                "reason": failure.reason,
            }
        self._memory.put(_KEY, None if document is None else json.dumps(document))
        self._saved = failure is not None

    def _remembered(self) -> Outage | None:
        try:
            text = self._memory.get(_KEY)
            if text is None:
                return None
            document = json.loads(text)
            since_ns, since, reason = int(document["since_ns"]), float(document["since"]), str(document["reason"])
            same_boot = document["boot_id"] == boot_id()
        except (StoreError, LookupError, TypeError, ValueError):
            return None
        if not same_boot:
            since_ns = self._clock.boottime_ns() - max(0, round((self._clock.wall() - since) * SECOND_NS))
        return Outage(since_ns, since, reason)
