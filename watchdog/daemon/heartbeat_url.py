"""Where heartbeats go: a URL in Healthchecks' way, with `/fail` behind its path for bad news.

Source: healthchecks.io, "Pinging API".
"""

from __future__ import annotations

import urllib.parse
from typing import Self

from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.receivers.transport import http


class HeartbeatUrl:
    """Posts heartbeats, every `interval_ns`."""

    def __init__(self, url: Secret, interval_ns: int) -> None:
        """Post to `url`, and to the one made of it for bad news.

        Raises:
            ValueError: it is no URL; the text does not show it.
        """
        self.interval_ns = interval_ns
        self._well = http.Endpoint(url)
        self._unwell = http.Endpoint(_with_fail(url))

    @classmethod
    def from_table(cls, table: Table) -> Self | None:
        """Read `[heartbeat]`: `url` (or its other forms) and `interval`; None where a problem has been noted."""
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
        """Post a JSON document; a 2xx status says that it was heard.

        Raises:
            DeliveryError: after `deadline_seconds` at the latest.
        """
        endpoint = self._well if is_healthy else self._unwell
        answer = endpoint.post(body, {"Content-Type": "application/json"}, deadline_seconds)
        http.raise_for_status(answer, endpoint.host)


def _with_fail(url: Secret) -> Secret:
    parts = urllib.parse.urlsplit(url.reveal())
    return Secret(parts._replace(path=parts.path.rstrip("/") + "/fail").geturl())
