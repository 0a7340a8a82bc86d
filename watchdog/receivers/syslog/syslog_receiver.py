"""Syslog: one record per alert, in RFC 5424 with the facts as structured data, or in syslog(3)'s form.

What listens at /dev/log does not understand RFC 5424: journald takes its header for the message, and so does rsyslog
unless told otherwise (rsyslog/rsyslog#4749). There, records are in syslog(3)'s form, the structured data at their end.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.config.document import Table
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.alert_facts import alert_event, alert_facts
from watchdog.receivers.render.severity import syslog_level
from watchdog.receivers.syslog.stream import FRAMINGS, TlsSettings
from watchdog.receivers.syslog.wires import LOCAL_SYSLOG_SOCKETS, SyslogWire, UnixWire, wire_from_address
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.tls import (
    TLS_KEYS,
    configure_pinning,
    fingerprints_from_table,
    tls_context_from_table,
)
from watchdog.routing.notification import Notification

# RFC 5424 §6.2.1, by the names of syslog.conf(5)
FACILITIES = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
} | {f"local{number}": 16 + number for number in range(8)}

_APP = b"bpf-watchdog"
_SD_ID = b"bpf-watchdog@32473"  # RFC 5612: the enterprise number for examples, until there is one of our own
_BOM = b"\xef\xbb\xbf"  # RFC 5424 §6.4: says that MSG is UTF-8
_LONGEST_HOST = 255  # RFC 5424 §6
_LONGEST_NAME = 32
_LONGEST_VALUE = 255
_LEAST_MESSAGE = 200  # octets kept for the words when the labels are many and long

_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")
_NOT_IN_NAME = re.compile(r'[^\x21-\x7e]|[="\]]')
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog(Receiver):
    """Sends one record per alert of a notice."""

    type: ClassVar[str] = "syslog"
    default_rate_limit: ClassVar[str] = "none"

    def __init__(
        self,
        name: str,
        wire: SyslogWire,
        facility: int,
        *,
        use_local_format: bool,
        options: ReceiverOptions | None = None,
    ) -> None:
        """Send over `wire`, in syslog(3)'s format or that of RFC 5424."""
        super().__init__(name, options)
        self._wire = wire
        self._facility = facility
        self._local_format = use_local_format

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `address`, `facility` and `format`, the `framing` of TCP and the certificates of TLS."""
        wire = _wire_from_table(table)
        is_unix = isinstance(wire, UnixWire)
        usual = "local" if isinstance(wire, UnixWire) and wire.path in LOCAL_SYSLOG_SOCKETS else "rfc5424"
        chosen = table.text("format", usual, choices=("rfc5424", "local"))
        if chosen == "local" and not is_unix:
            table.add_problem("format", '"local" is for unix:// addresses: servers expect "rfc5424"')
        facility = table.text("facility", "daemon", choices=FACILITIES)
        return cls(name, wire, FACILITIES[facility], use_local_format=chosen == "local", options=options)

    def render(self, notification: Notification) -> bytes:
        """Return the records, a newline between them."""
        return b"\n".join(self._records(notification))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Send the records; what counts as delivered is told by each wire in `syslog_wire`."""
        deadline = Deadline(deadline_seconds)
        self._wire.send_records(list(self._records(notification)), deadline)

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the octets of each record."""
        return [f"{len(record):,} of {self._wire.max_record_bytes:,} octets" for record in self._records(notification)]

    def destination(self) -> str:
        """Return the address."""
        return f"syslog {self._wire}"

    def _records(self, notification: Notification) -> Iterator[bytes]:
        for alert in notification_text.worst_first(notification.alerts):
            priority = b"<%d>" % (self._facility * 8 + syslog_level(alert))
            record = self._local_record if self._local_format else self._rfc5424_record
            yield record(priority, alert, notification)

    def _rfc5424_record(self, priority: bytes, alert: Alert, notification: Notification) -> bytes:
        moment = notification_text.rfc3339(notification.created).encode()
        host = _NOT_PRINTABLE_ASCII.sub("?", notification.host)[:_LONGEST_HOST].encode() or b"-"
        header = b"%b1 %b %b %b %d %b " % (
            priority,
            moment,
            host,
            _APP,
            os.getpid(),
            alert_event(alert, notification).value.encode(),
        )
        start = (
            header
            + _structured_data(alert, notification, self._wire.max_record_bytes - len(header) - _LEAST_MESSAGE)
            + b" "
            + _BOM
        )
        return start + _message(alert, notification, self._wire.max_record_bytes - len(start))

    def _local_record(self, priority: bytes, alert: Alert, notification: Notification) -> bytes:
        at = time.localtime(notification.created)
        month = _MONTHS[at.tm_mon - 1]
        moment = f"{month} {at.tm_mday:2} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}".encode()
        start = b"%b%b %b[%d]: " % (priority, moment, _APP, os.getpid())
        end = b" " + _structured_data(alert, notification, self._wire.max_record_bytes - len(start) - _LEAST_MESSAGE)
        return start + _message(alert, notification, self._wire.max_record_bytes - len(start) - len(end)) + end


def _wire_from_table(table: Table) -> SyslogWire:
    address = table.text("address", "unix:///dev/log")
    framing = table.text("framing", "octet-counting", choices=FRAMINGS)
    scheme = address.partition(":")[0]
    if scheme != "tcp" and framing != "octet-counting":
        table.add_problem("framing", '"lf" is for tcp:// addresses: TLS counts octets (RFC 5425), datagrams need none')
    security = None
    if scheme == "tls":
        context, pins = tls_context_from_table(table, unshared=True), fingerprints_from_table(table, "fingerprints")
        security = TlsSettings(configure_pinning(context, verify_chain="ca_file" in table) if pins else context, pins)
    for key in (*TLS_KEYS, "fingerprints"):
        if scheme != "tls" and table.value(key, None) is not None:
            table.add_problem(key, "is for tls:// addresses")
    try:
        return wire_from_address(address, framing, security)
    except ValueError as error:
        table.add_problem("address", str(error))
        return UnixWire("/dev/log")


def _message(alert: Alert, notification: Notification, limit: int) -> bytes:
    unusual_reason = [text] if (text := notification_text.unusual_reason(notification)) else []
    said = [
        notification_text.alert_title(alert, notification),
        *unusual_reason,
        *notification_text.detail_lines(alert, notification),
    ]
    return sanitize.for_syslog("; ".join(said), limit)


def _structured_data(alert: Alert, notification: Notification, limit: int) -> bytes:
    """Return the SD-ELEMENT, at most `limit` octets long: parameters that find no room are left out, which it says."""
    end = b' truncated="yes"]'
    whole = b"[" + _SD_ID
    for name, value in _parameters(alert, notification):
        parameter = b' %b="%b"' % (name, sanitize.for_syslog_value(value, _LONGEST_VALUE))
        if len(whole) + len(parameter) + len(end) > limit:
            return whole + end
        whole += parameter
    return whole + b"]"


def _parameters(alert: Alert, notification: Notification) -> Iterator[tuple[bytes, str]]:
    own = alert_facts(alert, notification)
    yield from ((name.encode(), value) for name, value in own.items())
    for label, value in alert.labels:
        # the dimension `state` is the TCP state
        name = _NOT_IN_NAME.sub("_", f"label_{label}" if label in own else label)
        yield name[:_LONGEST_NAME].encode(), value
    if alert.runbook is not None:
        yield b"runbook", alert.runbook
