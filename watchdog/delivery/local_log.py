"""The local log of last resort: records about receivers that are down, written to this host's own syslog socket.

It works without any receiver and without the state file.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS
from watchdog.delivery.health import Outage

REPEAT_INTERVAL_NS = 3600 * SECOND_NS
SYSLOG_SOCKET = "/dev/log"

# syslog(3): facility daemon; alert is "action must be taken immediately", above the critical of any receiver's record
_ALERT = 3 * 8 + 1
_NOTICE = 3 * 8 + 5
_MAX_OCTETS = 2_000


class LocalLog:
    """Writes a record when a receiver is down, the same again each hour, and one when it works again. Never blocks."""

    def __init__(self, log: logging.Logger) -> None:
        """Write to the system's socket; log an error to `log` when the socket refuses a record."""
        self._log = log
        self._reported_ns: dict[str, int] = {}  # by receiver: time of the newest record, CLOCK_BOOTTIME
        self._refused = False

    def restore(self, down_receivers: Iterable[str], at_ns: int) -> None:
        """Take the receivers that a former daemon reported as reported at `at_ns` of CLOCK_BOOTTIME."""
        self._reported_ns = dict.fromkeys(down_receivers, at_ns)

    def report(
        self,
        down_alerts: Mapping[str, Alert],
        outages: Mapping[str, Outage],
        describe_queue: Callable[[str], str],
        at_ns: int,
    ) -> None:
        """Write the records that are new or due again.

        `down_alerts`: firing alerts about receivers, by receiver. `describe_queue`: returns a text about the pending
        notifications of a receiver.
        """
        for name in down_alerts:
            reported_ns = self._reported_ns.get(name)
            if name not in outages or (reported_ns is not None and at_ns - reported_ns < REPEAT_INTERVAL_NS):
                continue
            if self._write(_ALERT, f"{outages[name].describe(name)}; {describe_queue(name)}"):
                self._reported_ns[name] = at_ns
        for name in [name for name in self._reported_ns if name not in down_alerts]:
            if self._write(_NOTICE, f"receiver works again: receiver={name}"):
                del self._reported_ns[name]

    def _write(self, priority: int, text: str) -> bool:
        # No time stamp: the reader of the socket adds its own.
        record = b"<%d>bpf-watchdog[%d]: " % (priority, os.getpid()) + sanitize.for_syslog(text, _MAX_OCTETS)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(SYSLOG_SOCKET)
                datagrams.send(record)
        except OSError as error:
            if not self._refused:
                self._log.error(
                    "cannot write to the local log: socket=%s error=%s record=%s",
                    SYSLOG_SOCKET,
                    error.strerror,
                    sanitize.escape_unprintable(text, _MAX_OCTETS),
                )
            self._refused = True
            return False
        self._refused = False
        return True
