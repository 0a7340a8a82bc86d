"""Webhook receiver: posts Alertmanager's JSON (version 4), which its webhook clients accept, or a user's own body.

Source: prometheus/alertmanager, notify/webhook/webhook.go (Message) and template/template.go (Data, Alert).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, ClassVar, Self

from watchdog import sanitize
from watchdog.clock import Clock, SystemClock
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text, prometheus
from watchdog.receivers.render.template_body import TEMPLATE_ERRORS, TemplateBody, parse_template_body
from watchdog.receivers.transport import http
from watchdog.receivers.transport.http_headers import headers_from_table
from watchdog.routing.notification import Notification

_JSON = "application/json"
_MAX_ERROR_LENGTH = 200
_NO_HEADERS: Mapping[str, Secret] = MappingProxyType({})


class Webhook(Receiver):
    """Posts each notification as one document."""

    type: ClassVar[str] = "webhook"
    default_rate_limit: ClassVar[str] = "600/h"

    def __init__(
        self,
        name: str,
        endpoint: http.Endpoint,
        hmac_secret: Secret | None,
        clock: Clock,
        *,
        body: TemplateBody | None = None,
        headers: Mapping[str, Secret] = _NO_HEADERS,
        options: ReceiverOptions | None = None,
    ) -> None:
        """Post to `endpoint`; signed with `hmac_secret` if given; in Alertmanager's form without a `body`."""
        super().__init__(name, options)
        self._endpoint = endpoint
        self._hmac_secret = hmac_secret
        self._clock = clock
        self._body = body
        self._headers = headers

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `url` and `hmac_secret` (secrets in any form), the template, the headers and the login."""
        headers = headers_from_table(table)
        return cls(
            name,
            http.endpoint_from_table(table, "url", is_public_allowed=True, headers=headers),
            table.secret("hmac_secret", required=False),
            SystemClock(),
            body=parse_template_body(table),
            headers=headers,
            options=options,
        )

    def render(self, notification: Notification) -> bytes:
        """Return the document."""
        return self._content(notification)[0]

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post the document; a 2xx status confirms it."""
        body, content_type = self._content(notification)
        headers = {
            **{name: value.reveal() for name, value in self._headers.items()},
            "Content-Type": content_type,
            "X-Notification-Id": notification.id,
            **self._signature(body),
        }
        http.raise_for_status(self._endpoint.post(body, headers, deadline_seconds), self._endpoint.host)

    def destination(self) -> str:
        """Return the name of the host."""
        return f"webhook {self._endpoint.host}"

    def _content(self, notification: Notification) -> tuple[bytes, str]:
        """Return the body and its media type; a failing template is replaced by Alertmanager's form and the error."""
        document = {}
        if self._body is not None:
            try:
                return self._body.render(notification), self._body.content_type
            except TEMPLATE_ERRORS as error:
                text = sanitize.escape_unprintable(f"{type(error).__name__}: {error}", _MAX_ERROR_LENGTH)
                document = {"template_error": text}
        document = {**webhook_payload(notification), **document}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), _JSON

    def _signature(self, body: bytes) -> dict[str, str]:
        """Sign time and body, so that the server can refuse a replayed request."""
        if self._hmac_secret is None:
            return {}
        sent_at = str(int(self._clock.wall()))
        key = self._hmac_secret.reveal().encode(
            "utf-8", "surrogateescape"
        )  # an environment variable can contain any bytes
        signed = hmac.new(key, sent_at.encode() + b":" + body, hashlib.sha256)
        return {"X-Watchdog-Timestamp": sent_at, "X-Watchdog-Signature": f"sha256={signed.hexdigest()}"}


def webhook_payload(notification: Notification) -> dict[str, Any]:
    """Return `notification` as the document of Alertmanager's webhooks."""
    alerts = [
        prometheus.prometheus_alert(alert, notification) for alert in notification_text.worst_first(notification.alerts)
    ]
    # As in Alertmanager: the labels that all alerts of the group share; empty for a digest.
    by = (("rule", notification.group_key),) if notification.group_labels is None else notification.group_labels
    group = {"alertname" if name == "rule" else name: prometheus.label_value(value) for name, value in by}
    key = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(group.items()))
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{key}}}",
        "truncatedAlerts": 0,
        "status": notification.status,
        "receiver": notification.receiver,
        "groupLabels": group,
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": "",
        "notification_reason": notification.reason_text,
        "alerts": alerts,
    }


def _common(tables: list[dict[str, str]]) -> dict[str, str]:
    """Return the entries that all `tables` share."""
    return dict(sorted(reduce(lambda common, other: common & other.items(), tables[1:], set(tables[0].items()))))
