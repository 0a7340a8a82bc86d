"""The last resort: what this host's own log is told when nothing reaches a receiver, whatever else is configured."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS
from watchdog.delivery.receiver_down import Outage
from watchdog.receivers.render import notification_text

REPEAT_INTERVAL_NS = 3600 * SECOND_NS
SYSLOG_SOCKET = "/dev/log"

# syslog(3): facility daemon; alert is "action must be taken immediately", above the critical of any receiver's record
_ALERT = 3 * 8 + 1
_NOTICE = 3 * 8 + 5
_MOST_OCTETS = 2_000


class LocalLog:
    """Writes a record when a receiver is dead, each hour again, and one when it no longer is. Never waits."""

    def __init__(self, log: logging.Logger) -> None:
        """Use the system's socket; `log` is told when that takes nothing."""
        self._log = log
        self._said_ns: dict[str, int] = {}  # by receiver
        self._refused = False

    def restore(self, down_receivers: Iterable[str], at_ns: int) -> None:
        """Take what a former daemon has said for just said."""
        self._said_ns = dict.fromkeys(down_receivers, at_ns)

    def report(
        self,
        down_alerts: Mapping[str, Alert],
        outages: Mapping[str, Outage],
        describe_queue: Callable[[str], str],
        at_ns: int,
    ) -> None:
        """Say what is new or due; `waiting` tells in words what waits for a receiver."""
        for name in down_alerts:
            said_ns = self._said_ns.get(name)
            if name not in outages or (said_ns is not None and at_ns - said_ns < REPEAT_INTERVAL_NS):
                continue
            failure = outages[name]
            since = notification_text.rfc3339(failure.since)
            text = f"nothing reaches the receiver {name} since {since}: {failure.reason}"
            if self._say(_ALERT, f"{text}; {describe_queue(name)}"):
                self._said_ns[name] = at_ns
        for name in [name for name in self._said_ns if name not in down_alerts]:
            if self._say(_NOTICE, f"the receiver {name} no longer fails"):
                del self._said_ns[name]

    def _say(self, priority: int, text: str) -> bool:
        # No time stamp: whoever reads the socket puts its own.
        record = b"<%d>bpf-watchdog[%d]: " % (priority, os.getpid()) + sanitize.for_syslog(text, _MOST_OCTETS)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(SYSLOG_SOCKET)
                datagrams.send(record)
        except OSError as error:
            if not self._refused:
                self._log.error(
                    "%s: %s; it was to be told: %s",
                    SYSLOG_SOCKET,
                    error.strerror,
                    sanitize.escape_unprintable(text, _MOST_OCTETS),
                )
            self._refused = True
            return False
        self._refused = False
        return True
