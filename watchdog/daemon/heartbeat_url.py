"""The heartbeat target: the URL of a monitor, and another one for heartbeats with problems.

Without a URL of its own for problems, `/fail` is appended to the path. Healthchecks and Better Stack take that; others
take the state in the query: `?status=down` (Uptime Kuma), `?s=1` (Dead Man's Snitch), `?state=fail` (Cronitor).

Source: healthchecks.io, "Pinging API"; betterstack.com, "Cron and heartbeat monitor"; louislam/uptime-kuma,
server/routers/api-router.js (push); deadmanssnitch.com, "Docs"; cronitor.io, "Telemetry API".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from watchdog.config.document import KeptTable, Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport import http
from watchdog.receivers.transport.http_headers import headers_from_table, reject_second_login

_METHODS = ("GET", "POST")
# Healthchecks answers 200 to a ping of an unknown check: "OK (not found)", "OK (rate limited)".
_REFUSAL = re.compile(rb"OK \(([a-z ]{1,40})\)")


@dataclass(frozen=True, slots=True)
class _Monitor:
    """The table `[heartbeat]` as read, with the content that its files had then."""

    kept: KeptTable
    method: str
    headers: Mapping[str, Secret]
    success: http.Endpoint
    fail: http.Endpoint

    @classmethod
    def from_table(cls, table: Table) -> Self:
        method = table.text("method", "POST", choices=_METHODS)
        headers = headers_from_table(table)
        success = http.endpoint_from_table(table, "url", is_public_allowed=True, headers=headers)
        url, given = table.secret("fail_url", required=False, is_url=True), table.given_form("fail_url")
        reject_second_login(table, "fail_url", url, headers)
        if url is None or given is None:
            return cls(table.kept(), method, headers, success, success.with_path_suffix("/fail"))
        return cls(table.kept(), method, headers, success, http.endpoint_from_url(table, given, url, success.transport))

    def renewed(self) -> _Monitor:
        """Return the monitor with the present content of its files; itself if none has changed, or one is unusable."""
        if not self.kept.has_changed():
            return self
        table = self.kept.table()
        monitor = _Monitor.from_table(table)
        return self if table.document.problems else monitor


class HeartbeatUrl:
    """Sends heartbeats to a monitor; one is due every `interval_ns`."""

    def __init__(self, monitor: _Monitor, interval_ns: int) -> None:
        """Send to `monitor`."""
        self.interval_ns = interval_ns
        self._monitor = monitor

    @classmethod
    def from_table(cls, table: Table) -> Self | None:
        """Read `[heartbeat]`; return None after a problem, which is added to the table."""
        before = len(table.document.problems)
        interval_ns = table.duration("interval", "60s", minimum="1s", maximum="1d")
        monitor = _Monitor.from_table(table)
        table.reject_unknown_keys()
        return cls(monitor, interval_ns) if len(table.document.problems) == before else None

    def post(self, body: bytes, deadline_seconds: float, *, is_healthy: bool) -> None:
        """Send a JSON document, or a GET request without it; a 2xx status means that the monitor accepted it.

        Raises:
            DeliveryError: after `deadline_seconds` at the latest.
        """
        monitor = self._monitor = self._monitor.renewed()
        endpoint = monitor.success if is_healthy else monitor.fail
        headers = {name: value.reveal() for name, value in monitor.headers.items()}
        if monitor.method == "GET":
            response = endpoint.get(headers, deadline_seconds)
        else:
            response = endpoint.post(body, {**headers, "Content-Type": "application/json"}, deadline_seconds)
        http.raise_for_status(response, endpoint.host)
        if refusal := _refusal(response):
            text = f"{endpoint.host} answered {response.status}: {refusal}"
            raise DeliveryError(DeliveryErrorReason.CLIENT_ERROR, text, retryable=True)


def _refusal(response: http.HttpResponse) -> str:
    """Return the refusal in the body of an answer 2xx, "" without one."""
    if match := _REFUSAL.match(response.body.strip()):
        return match[1].decode()
    document = response.json_object()
    return "not ok" if document is not None and document.get("ok") is False else ""  # Uptime Kuma
