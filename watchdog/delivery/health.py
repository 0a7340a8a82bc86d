"""Receiver health: since when a receiver fails and why, kept over restarts.

Heartbeat, alert about a receiver, local log and escalation all ask this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from watchdog.clock import SECOND_NS, Clock, Now, boot_id
from watchdog.errors import StoreError
from watchdog.receivers.base import ReceiverState
from watchdog.receivers.render import notification_text

_KEY = "outage"


@dataclass(frozen=True, slots=True)
class Outage:
    """The time in which no attempt for a receiver succeeds. It begins with the first attempt that failed.

    `since_ns`: CLOCK_BOOTTIME; `since`: wall clock, for display. `reason`: error of the newest attempt, without
    secrets.
    """

    since_ns: int
    since: float
    reason: str

    def has_lasted(self, duration_ns: int, now_ns: int) -> bool:
        """Return whether the outage is `duration_ns` old or older at `now_ns` of CLOCK_BOOTTIME."""
        return now_ns - self.since_ns >= duration_ns

    def describe(self, receiver: str) -> str:
        """Return one line for a log or a heartbeat about the outage of `receiver`."""
        since = notification_text.rfc3339(self.since)
        return f"receiver down: receiver={receiver} since={since} reason={self.reason}"


def down_receivers(
    outages: Mapping[str, Outage], receivers: Iterable[str], down_after_ns: int, now_ns: int
) -> dict[str, Outage]:
    """Return the outages of those `receivers` that are down: their outage is `down_after_ns` old or older.

    `outages`: by receiver. `now_ns`: CLOCK_BOOTTIME. The only definition of a receiver that is down: the alert about
    it, the heartbeat and the local log use it.
    """
    return {
        name: outages[name] for name in receivers if name in outages and outages[name].has_lasted(down_after_ns, now_ns)
    }


class ReceiverHealth:
    """The results of the newest attempts for one receiver.

    The receiver's thread writes, other threads read without a lock: each attribute is replaced as a whole.
    """

    def __init__(self, receiver_state: ReceiverState, clock: Clock, hang_timeout_seconds: float) -> None:
        """Continue the outage saved in `receiver_state`.

        An attempt that runs for `hang_timeout_seconds` counts as failed before it has ended.
        """
        self._receiver_state = receiver_state
        self._clock = clock
        self._hang_ns = round(hang_timeout_seconds * SECOND_NS)
        self._outage: Outage | None = None
        self._saved = False
        self._by_refresh = False
        self._attempt: Now | None = None
        self.load()

    def load(self) -> None:
        """Continue the saved outage, that of a former worker for example."""
        self._outage = self._load()
        self._saved = self._outage is not None

    @property
    def outage(self) -> Outage | None:
        """Return the present outage, None while attempts succeed."""
        outage, attempt = self._outage, self._attempt
        if outage is None and attempt is not None and self._clock.boottime_ns() - attempt.boottime_ns >= self._hang_ns:
            return Outage(attempt.boottime_ns, attempt.wall, "timeout: an attempt does not end")
        return outage

    def attempt_started(self) -> None:
        """Record that an attempt begins now."""
        self._attempt = Now.read(self._clock)

    def attempt_succeeded(self, *, refresh: bool = False) -> None:
        """Record that the attempt succeeded. A successful refresh ends only an outage that a refresh began."""
        self._attempt = None
        if not refresh or self._by_refresh:
            self._outage = None

    def attempt_failed(self, reason: str, *, refresh: bool = False) -> None:
        """Record that the attempt failed."""
        begin = self._attempt or Now.read(self._clock)
        self._by_refresh = refresh and (self._outage is None or self._by_refresh)
        first = self._outage or Outage(begin.boottime_ns, begin.wall, reason)
        self._outage = replace(first, reason=reason)
        self._attempt = None

    def forget_stale_outage(self, min_age_seconds: float) -> None:
        """Drop the outage if it began `min_age_seconds` ago or earlier."""
        if self._outage is not None and self._outage.has_lasted(
            round(min_age_seconds * SECOND_NS), self._clock.boottime_ns()
        ):
            self._outage = None

    def save(self) -> None:
        """Save the beginning or the end of an outage; do nothing if neither happened since the last call.

        Raises:
            StoreError: the state file can't be written; call again later.
        """
        outage = self._outage
        if (outage is not None) == self._saved:
            return
        document = None
        if outage is not None:
            document = {
                "boot_id": boot_id(),
                "since_ns": outage.since_ns,
                "since": outage.since,
                "reason": outage.reason,
            }
        self._receiver_state.put(_KEY, None if document is None else json.dumps(document))
        self._saved = outage is not None

    def _load(self) -> Outage | None:
        try:
            text = self._receiver_state.get(_KEY)
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
