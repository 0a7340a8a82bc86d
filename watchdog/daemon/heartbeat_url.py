"""The heartbeat target: a URL as of Healthchecks, with `/fail` appended to its path if there are problems.

Source: healthchecks.io, "Pinging API".
"""

from __future__ import annotations

import urllib.parse
from typing import Self

from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.receivers.transport import http


class HeartbeatUrl:
    """Posts heartbeats to a URL; one is due every `interval_ns`."""

    def __init__(self, url: Secret, interval_ns: int) -> None:
        """Post to `url`, or to the URL with `/fail` derived from it.

        Raises:
            ValueError: `url` is no URL; the message does not show it.
        """
        self.interval_ns = interval_ns
        self._success = http.Endpoint(url)
        self._fail = http.Endpoint(_with_fail(url))

    @classmethod
    def from_table(cls, table: Table) -> Self | None:
        """Read `[heartbeat]`: `url` (or its other forms) and `interval`; return None after a problem."""
        url = table.secret("url", is_url=True)
        interval_ns = table.duration("interval", "60s", minimum="1s", maximum="1d")
        table.reject_unknown_keys()
        if url is None:
            return None
        try:
            return cls(url, interval_ns)
        except ValueError as error:
            table.add_problem(table.given_form("url") or "url", str(error))
            return None

    def post(self, body: bytes, deadline_seconds: float, *, is_healthy: bool) -> None:
        """Post a JSON document; a 2xx status means that the monitor accepted it.

        Raises:
            DeliveryError: after `deadline_seconds` at the latest.
        """
        endpoint = self._success if is_healthy else self._fail
        response = endpoint.post(body, {"Content-Type": "application/json"}, deadline_seconds)
        http.raise_for_status(response, endpoint.host)


def _with_fail(url: Secret) -> Secret:
    parts = urllib.parse.urlsplit(url.reveal())
    return Secret(parts._replace(path=parts.path.rstrip("/") + "/fail").geturl())
