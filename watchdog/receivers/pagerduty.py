"""PagerDuty receiver: one event per alert through the Events API v2, `trigger` while it fires, `resolve` at its end.

Each alert has its own `dedup_key`, so an event that is sent twice changes only PagerDuty's log. PagerDuty limits the
rate of events, so a retry sends only the events that were not accepted yet (`partial_delivery.py`).

Source: PagerDuty/developer-docs, docs/events-API-v2 (01-Overview, 02-Trigger-Events, 05-Rate-Limits).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, ClassVar, Self

from watchdog import sanitize
from watchdog.alerts.alert import Alert
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.partial_delivery import PartialDelivery, UnfinishedNotifications
from watchdog.receivers.render import notification_text, prometheus
from watchdog.receivers.render.severity import PAGERDUTY_SEVERITIES
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification

EVENTS_API_URL = "https://events.pagerduty.com/v2/enqueue"
MAX_EVENT_BYTES = 512_000

_MAX_SUMMARY_LENGTH = 512  # 1,024 characters of an undocumented kind: at most two UTF-16 units for each of ours
_MAX_FIELD_LENGTH = 255
_RATE_LIMIT_WAIT_SECONDS = 30.0  # advice of PagerDuty's page on rate limits

_ROUTING_KEY = re.compile(r"[0-9A-Za-z]{32}")
_NO_KEY = Secret("0" * 32)
_HINTS = {
    "routing": ": unknown routing key: use the key of an Events API v2 integration",
    "invalid event": ": PagerDuty rejects the form of the event: please report this as a bug",
}


class PagerDuty(Receiver):
    """Posts one event per alert of a notification."""

    type: ClassVar[str] = "pagerduty"
    joins_copies = True  # by the `dedup_key`

    def __init__(
        self, name: str, endpoint: http.Endpoint, routing_key: Secret, options: ReceiverOptions | None = None
    ) -> None:
        """Post to `endpoint` for the PagerDuty service of `routing_key`."""
        super().__init__(name, options)
        self._endpoint = endpoint
        self._routing_key = routing_key
        self._unfinished = UnfinishedNotifications(self.state)

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `routing_key` (a secret in any form), and `url` for regions other than the US."""
        key = table.secret("routing_key")
        if key is not None and not _ROUTING_KEY.fullmatch(key.reveal()):
            table.add_problem(
                table.given_form("routing_key") or "routing_key",
                "must be the key of an Events API v2 integration: 32 letters and digits",
            )
        transport = http.http_transport_from_table(table)
        endpoint = http.endpoint_from_url(
            table, table.given_form("url") or "url", table.url_with_login("url", EVENTS_API_URL), transport
        )
        return cls(name, endpoint, key or _NO_KEY, options)

    def render(self, notification: Notification) -> bytes:
        """Return the JSON of the events, with the routing key masked."""
        mask = str(self._routing_key)
        return b"\n".join(
            _body(alert, notification, mask) for alert in notification_text.worst_first(notification.alerts)
        )

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post the events that have no final result yet; PagerDuty confirms an event by its JSON.

        A refused event delays no other event.

        Raises:
            PartialDeliveryError: PagerDuty accepted some events and refused others for good.
            DeliveryError: it accepted none, or did not answer.
        """
        deadline = Deadline(deadline_seconds)
        delivery = self._unfinished.delivery_of(notification.id)
        try:
            for alert in notification_text.worst_first(notification.alerts):
                if delivery.remaining([alert.fingerprint]):
                    self._post(alert, notification, delivery, deadline)
        except DeliveryError:
            self._unfinished.save(notification.id)
            raise
        self._unfinished.finish(notification.id)
        delivery.raise_if_incomplete(len(notification.alerts), "events")

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the characters of the summary and the octets of each event."""
        events = [json.loads(body) for body in self.render(notification).splitlines()]
        sizes = [len(body) for body in self.render(notification).splitlines()]
        return [
            f"summary {len(event['payload']['summary'])} of 1,024 characters, event"
            f" {size:,} of {MAX_EVENT_BYTES:,} octets"
            for event, size in zip(events, sizes, strict=True)
        ]

    def destination(self) -> str:
        """Return the name of the host."""
        return f"PagerDuty {self._endpoint.host}"

    def _post(self, alert: Alert, notification: Notification, delivery: PartialDelivery, deadline: Deadline) -> None:
        host = self._endpoint.host
        if deadline.remaining() <= 0:
            raise DeliveryError(
                DeliveryErrorReason.TIMEOUT, f"{host}: deadline passed before all events were sent", retryable=True
            )
        headers = {"Content-Type": "application/json", "X-Notification-Id": notification.id}
        answer = self._endpoint.post(
            _body(alert, notification, self._routing_key.reveal()), headers, max(0.001, deadline.remaining())
        )
        try:
            http.raise_for_status(answer, host, _hint(answer))
            if (answer.json_object() or {}).get("status") != "success":
                raise http.undocumented_answer(host, answer.status, 'PagerDuty\'s "status": "success"')
        except DeliveryError as error:
            if error.reason is DeliveryErrorReason.RATE_LIMITED and error.retry_after_seconds is None:
                error.retry_after_seconds = _RATE_LIMIT_WAIT_SECONDS
            if error.retryable:
                raise
            delivery.record([alert.fingerprint], {alert.fingerprint: error})
        else:
            delivery.record([alert.fingerprint], {})


def dedup_key(alert: Alert, host: str) -> str:
    """Return the key by which PagerDuty joins the firing and the end of one alert: 64 hex digits.

    It is the incident key of the firing. Alerts of a former version have none: `host` and the fingerprint made it.
    """
    if alert.identity.incident_key:
        return alert.identity.incident_key
    return hashlib.sha256(host.encode("utf-8", "surrogatepass") + b"\xff" + alert.fingerprint.encode()).hexdigest()


def _body(alert: Alert, notification: Notification, routing_key: str) -> bytes:
    event = _event(alert, notification, routing_key)
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) <= MAX_EVENT_BYTES:
        return body
    event["payload"]["custom_details"] = {"truncated": "true"}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _event(alert: Alert, notification: Notification, routing_key: str) -> dict[str, Any]:
    labels = prometheus.prometheus_labels(alert, notification)
    payload = {
        "summary": sanitize.escape_unprintable(notification_text.alert_title(alert, notification), _MAX_SUMMARY_LENGTH),
        "source": _field(notification.host) or "unknown",
        "severity": PAGERDUTY_SEVERITIES[alert.severity],
        "timestamp": notification_text.rfc3339(alert.fired),
        "class": _field(alert.rule),
        "custom_details": prometheus.prometheus_annotations(alert, notification)
        | labels
        | {"notification_id": notification.id},
    }
    payload |= {
        key: _field(labels[label]) for key, label in (("component", "process"), ("group", "unit")) if label in labels
    }
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "trigger" if alert.resolved is None else "resolve",
        "dedup_key": dedup_key(alert, notification.host),
        "client": "bpf-watchdog",
        "payload": payload,
    }
    links = {"runbook": alert.runbook, "dashboard": alert.identity.generator_url}
    if shown := [{"href": sanitize.escape_unprintable(href), "text": text} for text, href in links.items() if href]:
        event["links"] = shown
    return event


def _field(text: str) -> str:
    return sanitize.escape_unprintable(text, _MAX_FIELD_LENGTH)


def _hint(answer: http.HttpResponse) -> str:
    """Return the explanation of a refusal. PagerDuty's own text is not shown: it can contain parts of the event."""
    document = answer.json_object() or {}
    given = document.get("errors")
    errors = " ".join(map(str, given if isinstance(given, list) else ())) + str(document.get("message", ""))
    if re.search("routing.key", errors, re.IGNORECASE):
        return _HINTS["routing"]
    return _HINTS.get(str(document.get("status", "")), "")
