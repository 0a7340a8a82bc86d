"""Syslog: one record per alert, in RFC 5424 with the facts as structured data, or in the format of syslog(3).

Readers of /dev/log do not understand RFC 5424: journald takes its header for the message, and so does rsyslog unless
configured otherwise (rsyslog/rsyslog#4749). Records for them have the format of syslog(3), with the structured data at
the end.
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

_APP_NAME = b"bpf-watchdog"
_SD_ID = b"bpf-watchdog@32473"  # RFC 5612: the enterprise number for examples; the project has no number of its own
_BOM = b"\xef\xbb\xbf"  # RFC 5424 §6.4: marks MSG as UTF-8
_MAX_HOST = 255  # RFC 5424 §6
_MAX_NAME = 32  # RFC 5424 §6
_MAX_VALUE_BYTES = 255
_MIN_MESSAGE_BYTES = 200  # reserved for the message if labels are many and long

_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")
_NOT_IN_NAME = re.compile(r'[^\x21-\x7e]|[="\]]')
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog(Receiver):
    """Sends one record per alert of a notification."""

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
        """Send over `wire`, in the format of syslog(3) (`use_local_format`) or of RFC 5424."""
        super().__init__(name, options)
        self._wire = wire
        self._facility = facility
        self._use_local_format = use_local_format

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `address`, `facility` and `format`; for TCP also `framing`, for TLS also the keys of certificates."""
        wire = _wire_from_table(table)
        default = "local" if isinstance(wire, UnixWire) and wire.path in LOCAL_SYSLOG_SOCKETS else "rfc5424"
        chosen = table.text("format", default, choices=("rfc5424", "local"))
        if chosen == "local" and not isinstance(wire, UnixWire):
            table.add_problem("format", '"local" is for unix:// addresses: servers expect "rfc5424"')
        facility = table.text("facility", "daemon", choices=FACILITIES)
        return cls(name, wire, FACILITIES[facility], use_local_format=chosen == "local", options=options)

    def render(self, notification: Notification) -> bytes:
        """Return the records, separated by line feeds."""
        return b"\n".join(self._records(notification))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Send the records; each wire in `wires` and `stream` documents when a record counts as delivered.

        Raises:
            DeliveryError: a record was not delivered.
        """
        deadline = Deadline(deadline_seconds)
        self._wire.send_records(list(self._records(notification)), deadline)

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the size of each record in octets, with its limit."""
        return [f"{len(record):,} of {self._wire.max_record_bytes:,} octets" for record in self._records(notification)]

    def destination(self) -> str:
        """Return the address."""
        return f"syslog {self._wire}"

    def _records(self, notification: Notification) -> Iterator[bytes]:
        for alert in notification_text.worst_first(notification.alerts):
            priority = b"<%d>" % (self._facility * 8 + syslog_level(alert))
            record = self._local_record if self._use_local_format else self._rfc5424_record
            yield record(priority, alert, notification)

    def _rfc5424_record(self, priority: bytes, alert: Alert, notification: Notification) -> bytes:
        timestamp = notification_text.rfc3339(notification.created).encode()
        host = _NOT_PRINTABLE_ASCII.sub("?", notification.host)[:_MAX_HOST].encode() or b"-"
        header = b"%b1 %b %b %b %d %b " % (
            priority,
            timestamp,
            host,
            _APP_NAME,
            os.getpid(),
            alert_event(alert, notification).value.encode(),
        )
        max_data_bytes = self._wire.max_record_bytes - len(header) - _MIN_MESSAGE_BYTES
        start = b"%b%b %b" % (header, _structured_data(alert, notification, max_data_bytes), _BOM)
        return start + _message(alert, notification, self._wire.max_record_bytes - len(start))

    def _local_record(self, priority: bytes, alert: Alert, notification: Notification) -> bytes:
        created = time.localtime(notification.created)
        month = _MONTHS[created.tm_mon - 1]
        timestamp = f"{month} {created.tm_mday:2} {created.tm_hour:02}:{created.tm_min:02}:{created.tm_sec:02}".encode()
        start = b"%b%b %b[%d]: " % (priority, timestamp, _APP_NAME, os.getpid())
        max_data_bytes = self._wire.max_record_bytes - len(start) - _MIN_MESSAGE_BYTES
        end = b" " + _structured_data(alert, notification, max_data_bytes)
        return start + _message(alert, notification, self._wire.max_record_bytes - len(start) - len(end)) + end


def _wire_from_table(table: Table) -> SyslogWire:
    address = table.text("address", "unix:///dev/log")
    framing = table.text("framing", "octet-counting", choices=FRAMINGS)
    scheme = address.partition(":")[0]
    if scheme != "tcp" and framing != "octet-counting":
        table.add_problem("framing", '"lf" is for tcp:// addresses: TLS counts octets (RFC 5425), datagrams need none')
    tls_settings = _tls_settings_from_table(table) if scheme == "tls" else None
    for key in (*TLS_KEYS, "fingerprints"):
        if scheme != "tls" and table.value(key, None) is not None:
            table.add_problem(key, "is for tls:// addresses")
    try:
        return wire_from_address(address, framing, tls_settings)
    except ValueError as error:
        table.add_problem("address", str(error))
        return UnixWire("/dev/log")


def _tls_settings_from_table(table: Table) -> TlsSettings:
    context = tls_context_from_table(table, unshared=True)
    fingerprints = fingerprints_from_table(table, "fingerprints")
    if fingerprints:
        configure_pinning(context, verify_chain="ca_file" in table)
    return TlsSettings(context, fingerprints)


def _message(alert: Alert, notification: Notification, max_bytes: int) -> bytes:
    unusual_reason = [text] if (text := notification_text.unusual_reason(notification)) else []
    parts = [
        notification_text.alert_title(alert, notification),
        *unusual_reason,
        *notification_text.detail_lines(alert, notification),
    ]
    return sanitize.for_syslog("; ".join(parts), max_bytes)


def _structured_data(alert: Alert, notification: Notification, max_bytes: int) -> bytes:
    """Return the SD-ELEMENT in at most `max_bytes` octets; if parameters do not fit, it ends in truncated="yes"."""
    truncated_end = b' truncated="yes"]'
    element = b"[" + _SD_ID
    for name, value in _parameters(alert, notification):
        parameter = b' %b="%b"' % (name, sanitize.for_syslog_value(value, _MAX_VALUE_BYTES))
        if len(element) + len(parameter) + len(truncated_end) > max_bytes:
            return element + truncated_end
        element += parameter
    return element + b"]"


def _parameters(alert: Alert, notification: Notification) -> Iterator[tuple[bytes, str]]:
    facts = alert_facts(alert, notification)
    yield from ((name.encode(), value) for name, value in facts.items())
    for label, value in alert.all_labels:
        # a label must not replace a fact: `state` is also a dimension, the TCP state
        name = _NOT_IN_NAME.sub("_", f"label_{label}" if label in facts else label)
        yield name[:_MAX_NAME].encode(), value
    if alert.runbook is not None:
        yield b"runbook", alert.runbook
    if alert.identity.generator_url:
        yield b"dashboard", alert.identity.generator_url
