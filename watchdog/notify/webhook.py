"""Webhooks: Alertmanager's JSON, version 4, so that whatever takes its webhooks takes ours.

Source: prometheus/alertmanager, notify/webhook/webhook.go (Message) and template/template.go (Data, Alert).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from functools import reduce
from typing import Any, ClassVar, Self

from watchdog.alerts.notice import Notice
from watchdog.clock import Clock, SystemClock
from watchdog.document import Table
from watchdog.notify import http, render, v4
from watchdog.notify.receiver import Receiver
from watchdog.secret import Secret


class Webhook(Receiver):
    """Posts each notice as one JSON document."""

    type: ClassVar[str] = "webhook"
    usual_budget: ClassVar[str] = "600/h"

    def __init__(self, name: str, endpoint: http.Endpoint, hmac_secret: Secret | None, clock: Clock) -> None:
        """Post to `endpoint`, signed if there is an `hmac_secret`."""
        super().__init__(name)
        self._endpoint = endpoint
        self._hmac_secret = hmac_secret
        self._clock = clock

    @classmethod
    def from_table(cls, name: str, table: Table) -> Self:
        """Read `url` (or `url_file`, `url_env`) and `hmac_secret` (likewise, not required)."""
        endpoint = http.endpoint_from_table(table, "url")
        return cls(name, endpoint, table.secret("hmac_secret", required=False), SystemClock())

    def render(self, notice: Notice) -> bytes:
        """Return the JSON document."""
        return json.dumps(_message(notice), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notice: Notice, deadline_seconds: float) -> None:
        """Post it; a 2xx status says that the receiver has it."""
        body = self.render(notice)
        headers = {"Content-Type": "application/json", "X-Notification-Id": notice.id, **self._signature(body)}
        http.check(self._endpoint.post(body, headers, deadline_seconds), self._endpoint.host)

    def destination(self) -> str:
        """Name the host."""
        return f"webhook {self._endpoint.host}"

    def _signature(self, body: bytes) -> dict[str, str]:
        """Sign time and body, so that the other side can refuse old requests sent again."""
        if self._hmac_secret is None:
            return {}
        sent_at = str(int(self._clock.wall()))
        key = self._hmac_secret.reveal().encode("utf-8", "surrogateescape")  # an environment may hold any bytes
        signed = hmac.new(key, sent_at.encode() + b":" + body, hashlib.sha256)
        return {"X-Watchdog-Timestamp": sent_at, "X-Watchdog-Signature": f"sha256={signed.hexdigest()}"}


def _message(notice: Notice) -> dict[str, Any]:
    alerts = [v4.alert_json(alert, notice) for alert in render.worst_first(notice.alerts)]
    # As Alertmanager says it: what all alerts of the group have in common, nothing for a digest.
    by = (("rule", notice.group),) if notice.by is None else notice.by
    group = {"alertname" if name == "rule" else name: v4.text(value) for name, value in by}
    key = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(group.items()))
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{key}}}",
        "truncatedAlerts": 0,
        "status": notice.status,
        "receiver": notice.receiver,
        "groupLabels": group,
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": "",
        "notification_reason": notice.reason,
        "alerts": alerts,
    }


def _common(tables: list[dict[str, str]]) -> dict[str, str]:
    """Return the entries that all of `tables` have in common."""
    return dict(sorted(reduce(lambda common, other: common & other.items(), tables[1:], set(tables[0].items()))))
