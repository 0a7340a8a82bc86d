"""Alertmanager: each alert to every instance of a cluster, as Prometheus does, and again while it fires.

An instance forgets an alert at its `endsAt`, so what fires is given one some minutes ahead, and told again before that.
Instances share what they have notified, not what they were told: each has to hear of everything from us. A notice
counts as delivered once one of them has it. One that is down delays nobody, and hears what it missed when it is back.

Source: prometheus/alertmanager, api/v2/openapi.yaml (postableAlerts), types/types.go (Alert.Merge: the last told
rules); prometheus/prometheus, rules/manager.go (endsAt four intervals ahead).
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock, SystemClock
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text, prometheus
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification, NotificationReason

API_PATH = "/api/v2/alerts"
RETRY_SECONDS = 5.0
_ATTEMPT_SECONDS = 10.0
_MOST_OWED = 1_000  # alerts; what one is not told any more it ends by itself
_HEADERS = {"Content-Type": "application/json"}

_PostOutcomes = queue.SimpleQueue[DeliveryError | None]  # what became of one post: None when the instance has it


class Alertmanager(Receiver):
    """Posts the alerts of each notice to all instances at once."""

    type: ClassVar[str] = "alertmanager"
    default_rate_limit: ClassVar[str] = "none"  # it groups and throttles itself
    refresh_interval_seconds: ClassVar[float | None] = 60.0
    alert_expiry_seconds: ClassVar[float] = 4 * 60.0
    """How long an instance goes on with an alert that it hears no more of."""

    def __init__(
        self, name: str, endpoints: Sequence[http.Endpoint], clock: Clock, options: ReceiverOptions | None = None
    ) -> None:
        """Post to `endpoints`, the instances of one cluster."""
        super().__init__(name, options)
        self._instances = [_ClusterMember(endpoint, clock, self.alert_expiry_seconds) for endpoint in endpoints]
        self._clock = clock
        self._told: dict[str, dict[str, Any]] = {}  # by fingerprint, of what fires: the alert as it was told

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `urls`, each as Alertmanager's own tools take it, and their transport (`http_transport_from_table`).

        URLs are without the path of the interface.
        """
        endpoints = []
        transport = http.http_transport_from_table(table)
        for index, url in enumerate(table.texts("urls")):
            secret_url = Secret(url.rstrip("/") + API_PATH)
            endpoints.append(http.endpoint_from_url(table, "urls", secret_url, transport, index=index))
        if not endpoints and not table.document.problems:
            table.add_problem("urls", "must name at least one instance")
        return cls(name, endpoints, SystemClock(), options)

    def render(self, notification: Notification) -> bytes:
        """Return the JSON array of alerts."""
        return _body(self._alerts(notification))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post it to all; delivered when one of them said that it has it."""
        alerts = self._alerts(notification)
        try:
            self._post_to_all(alerts, Deadline(deadline_seconds))
        except DeliveryError:
            for instance in self._instances:
                instance.discard(alerts)  # it will all be told again
            raise
        self._remember(notification)

    def refresh(self, alerts: Sequence[Alert], host: str, deadline_seconds: float) -> None:
        """Put off the end of `alerts`."""
        if alerts:
            now = self._clock.wall()
            self.send(
                Notification(
                    "refresh", self.name, alerts[0].rule, NotificationReason.REFRESH, tuple(alerts), now, host
                ),
                deadline_seconds,
            )

    def destination(self) -> str:
        """Name the hosts."""
        return f"Alertmanager {', '.join(instance.host for instance in self._instances)}"

    def close(self) -> None:
        """Give up on what instances have missed."""
        for instance in self._instances:
            instance.close()

    def _post_to_all(self, alerts: list[dict[str, Any]], deadline: Deadline) -> None:
        report: _PostOutcomes = queue.SimpleQueue()
        for instance in self._instances:
            instance.enqueue(alerts, report)
        failures: list[DeliveryError] = []
        while len(failures) < len(self._instances):
            try:
                failure = report.get(timeout=deadline.remaining())
            except queue.Empty:
                failure = DeliveryError(DeliveryErrorReason.TIMEOUT, "no complete answer in time", retryable=True)
                raise _all_of([*failures, failure]) from None
            if failure is None:
                return
            failures.append(failure)
        raise _all_of(failures)

    def _alerts(self, notification: Notification) -> list[dict[str, Any]]:
        return [
            told
            for alert in notification_text.worst_first(notification.alerts)
            for told in self._with_former(alert, notification)
        ]

    def _with_former(self, alert: Alert, notification: Notification) -> Iterator[dict[str, Any]]:
        """Return `alert`, and the end of what it was: for an Alertmanager, other severity is another alert."""
        told = self._alert(alert, notification)
        yield told
        former = self._told.get(alert.fingerprint)
        if former is not None and former["labels"] != told["labels"]:
            yield {**former, "endsAt": notification_text.rfc3339(self._clock.wall())}

    def _alert(self, alert: Alert, notification: Notification) -> dict[str, Any]:
        ends = self._clock.wall() + self.alert_expiry_seconds if alert.resolved is None else alert.resolved
        return {
            "labels": prometheus.prometheus_labels(alert, notification),
            "annotations": prometheus.prometheus_annotations(alert, notification),
            "startsAt": notification_text.rfc3339(alert.fired),
            "endsAt": notification_text.rfc3339(ends),
        }

    def _remember(self, notification: Notification) -> None:
        for alert in notification.alerts:
            if alert.resolved is None:
                self._told[alert.fingerprint] = self._alert(alert, notification)
            else:
                self._told.pop(alert.fingerprint, None)


class _ClusterMember:
    """One Alertmanager, in a thread of its own, and what it is still to be told.

    Each alert is tried until the instance has it, until there is news of it, or until its own `endsAt` is over and
    there is nothing left to say. What no instance has taken is not owed: the outbox has it. This is kept in memory
    alone: what a daemon that was killed owed an instance, the instance finds out by that `endsAt`.
    """

    def __init__(self, endpoint: http.Endpoint, clock: Clock, alert_expiry_seconds: float) -> None:
        self.host = endpoint.host
        self._endpoint = endpoint
        self._clock = clock
        self._lifetime_ns = round(alert_expiry_seconds * SECOND_NS)
        self._news = threading.Condition()
        self._owed: dict[str, tuple[int, dict[str, Any]]] = {}  # by labels: until when, and the alert
        self._reports: list[_PostOutcomes] = []  # who waits for the next post's result
        self._pause_seconds = RETRY_SECONDS
        self._closing = False
        self._thread: threading.Thread | None = None

    def enqueue(self, alerts: list[dict[str, Any]], report: _PostOutcomes) -> None:
        """Have `alerts` posted, and the result put into `report`. Returns at once."""
        until_ns = self._clock.boottime_ns() + self._lifetime_ns
        with self._news:
            for alert in alerts:
                self._owed.pop(_key(alert), None)  # so that the newest stand last
                self._owed[_key(alert)] = (until_ns, alert)
            for key in list(self._owed)[: -max(_MOST_OWED, len(alerts))]:
                del self._owed[key]
            self._reports.append(report)
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"alertmanager-{self.host}", daemon=True)
                self._thread.start()

    def discard(self, alerts: list[dict[str, Any]]) -> None:
        """Owe it `alerts` no longer."""
        with self._news:
            for alert in alerts:
                if (owed := self._owed.get(_key(alert))) is not None and owed[1] is alert:
                    del self._owed[_key(alert)]

    def close(self) -> None:
        """End the thread, when the post under way is over."""
        with self._news:
            self._closing = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._reports or self._closing, self._pause_seconds if self._owed else None)
                if self._closing:
                    return
                now_ns = self._clock.boottime_ns()
                self._owed = {key: owed for key, owed in self._owed.items() if owed[0] > now_ns}
                batch, reports = self._owed.copy(), self._reports
                self._reports = []
            failure = self._post([alert for _, alert in batch.values()]) if batch else None
            asked = None if failure is None else failure.retry_after_seconds
            self._pause_seconds = max(RETRY_SECONDS, min(asked or 0.0, self._lifetime_ns / SECOND_NS))
            with self._news:
                if failure is None or not failure.retryable:
                    # What has been told anew meanwhile is still owed.
                    self._owed = {key: owed for key, owed in self._owed.items() if batch.get(key) is not owed}
            for report in reports:
                report.put(failure)

    def _post(self, alerts: list[dict[str, Any]]) -> DeliveryError | None:
        try:
            http.raise_for_status(self._endpoint.post(_body(alerts), _HEADERS, _ATTEMPT_SECONDS), self.host)
        except DeliveryError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an edge as the worker's: a bug must not end the thread unseen
            return DeliveryError(DeliveryErrorReason.INTERNAL, type(error).__name__, retryable=True)
        return None


def _key(alert: dict[str, Any]) -> str:
    return json.dumps(alert["labels"], sort_keys=True)


def _body(alerts: list[dict[str, Any]]) -> bytes:
    return json.dumps(alerts, ensure_ascii=False, separators=(",", ":")).encode()


def _all_of(failures: list[DeliveryError]) -> DeliveryError:
    """Return `failures` as one: trying again can help when it can with any instance."""
    chosen = next((failure for failure in failures if failure.retryable), failures[0])
    waits = [failure.retry_after_seconds for failure in failures]
    return DeliveryError(
        chosen.reason,
        "; ".join(dict.fromkeys(str(failure) for failure in failures)),
        retryable=chosen.retryable,
        retry_after_seconds=None if None in waits else min(wait for wait in waits if wait is not None),
    )
