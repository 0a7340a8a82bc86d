"""Alertmanager receiver: posts each alert to all members of a cluster, as Prometheus does, and repeats firing alerts.

A member forgets an alert at its `endsAt`. A firing alert therefore gets an `endsAt` four minutes ahead and is posted
again before that time. Members share the list of sent notifications, but not the alerts: each member needs each alert
from us. A notification is delivered when one member has accepted it. A member that is down delays no other member; it
gets the alerts that it missed when it is back.

Times are kept by CLOCK_BOOTTIME and written by the clock of the member where this host's is far from it: an `endsAt`
that lies in the member's past would end a firing alert, one in its future would keep an ended one. The member's clock
is known from the field Date of its answers (RFC 9110 §6.6.1).

Source: prometheus/alertmanager, api/v2/openapi.yaml (postableAlerts), types/types.go (Alert.Merge: the newest alert
wins); prometheus/prometheus, rules/manager.go (endsAt four intervals ahead).
"""

from __future__ import annotations

import json
import queue
import random
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS, Clock, Now, SystemClock, boot_id
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text, prometheus
from watchdog.receivers.transport import http
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.threads import start_thread
from watchdog.routing.notification import Notification, NotificationReason

API_PATH = "/api/v2/alerts"
RETRY_SECONDS = 5.0
_MAX_PENDING_ALERTS = 1_000  # a member ends older alerts by itself, at their `endsAt`
_MORE_THAN_A_BASE = re.compile(r"/api/v[0-9]+(?:/|$)|[?#]")
_GIVE_THE_BASE = f"give the URL of the Alertmanager without query and without {API_PATH}, which is appended to it"
_HEADERS = {"Content-Type": "application/json"}

_MAX_SKEW_SECONDS = 30.0  # of the two clocks; more is a clock that is wrong, or was set

_PostOutcomes = queue.SimpleQueue[DeliveryError | None]  # the error of one post, None if it was accepted


@dataclass(frozen=True, slots=True)
class _PostableAlert:
    """One alert for the API; `starts_ns`, `ends_ns`: CLOCK_BOOTTIME."""

    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    starts_ns: int
    ends_ns: int

    def to_json(self, clock_offset: float) -> dict[str, Any]:
        """Return the document; `clock_offset`: wall clock less CLOCK_BOOTTIME, in seconds."""
        link = {"generatorURL": self.generator_url} if self.generator_url else {}
        return {
            **link,
            "labels": self.labels,
            "annotations": self.annotations,
            "startsAt": _rfc3339(self.starts_ns, clock_offset),
            "endsAt": _rfc3339(self.ends_ns, clock_offset),
        }


class Alertmanager(Receiver):
    """Posts the alerts of each notification to all members at the same time."""

    type: ClassVar[str] = "alertmanager"
    joins_copies = True  # an alert that is posted again only moves its `endsAt`
    default_rate_limit: ClassVar[str] = "none"  # Alertmanager groups and limits notifications itself
    default_suppress = False  # … and has silences, mute times and inhibition of its own
    refresh_interval_seconds: ClassVar[float | None] = 60.0
    alert_expiry_seconds: ClassVar[float] = 4 * 60.0
    """Time after which a member resolves an alert that is not posted again."""

    def __init__(
        self, name: str, endpoints: Sequence[http.Endpoint], clock: Clock, options: ReceiverOptions | None = None
    ) -> None:
        """Post to `endpoints`, the members of one cluster."""
        super().__init__(name, options)
        self._members = [
            _ClusterMember(endpoint, clock, self.alert_expiry_seconds, self.timeout_seconds) for endpoint in endpoints
        ]
        self._clock = clock
        self._posted_alerts: dict[str, _PostableAlert] = {}  # firing alerts as posted, by fingerprint

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `urls` and the keys of `http_transport_from_table`.

        `urls` is an array, or a secret in another form with one URL per line. URLs have the form that Alertmanager's
        own tools use: without the path of the API.
        """
        endpoints = []
        transport = http.http_transport_from_table(table)
        key = table.given_form("urls") or "urls"
        for index, url in enumerate(table.urls_with_logins("urls")):
            position = index if key == "urls" else None
            if _MORE_THAN_A_BASE.search(url.reveal()):
                table.add_problem(key, _GIVE_THE_BASE, index=position)
                continue
            api_url = Secret(url.reveal().rstrip("/") + API_PATH)
            endpoints.append(http.endpoint_from_url(table, key, api_url, transport, index=position))
        if not endpoints and not table.document.problems and not table.is_unavailable("urls"):
            table.add_problem(key, "must contain at least one URL")
        return cls(name, endpoints, SystemClock(), options)

    def render(self, notification: Notification) -> bytes:
        """Return the JSON array of alerts."""
        return _body(self._alerts(notification), _clock_offset(Now.read(self._clock)))

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Post the alerts to all members; they are delivered when one member has accepted them."""
        alerts = self._alerts(notification)
        try:
            self._post_to_all(alerts, Deadline(deadline_seconds))
        except DeliveryError:
            for member in self._members:
                member.discard(alerts)  # the next attempt sends all of them again
            raise
        self._remember(notification)

    def refresh(self, alerts: Sequence[Alert], host: str, deadline_seconds: float) -> None:
        """Post `alerts` again with a later `endsAt`."""
        if alerts:
            now, boot = Now.read(self._clock), boot_id()
            notification = Notification(
                "refresh",
                self.name,
                alerts[0].rule,
                NotificationReason.REFRESH,
                tuple(alerts),
                now.wall,
                host,
                created_ns=now.boottime_ns,
                boot_id=boot,
            )
            self.send(notification.shown_at(now, boot), deadline_seconds)

    def destination(self) -> str:
        """Return the names of the hosts."""
        return f"Alertmanager {', '.join(member.host for member in self._members)}"

    def close(self) -> None:
        """End the threads; alerts that a member has missed are dropped."""
        for member in self._members:
            member.close()

    def _post_to_all(self, alerts: list[_PostableAlert], deadline: Deadline) -> None:
        outcomes: _PostOutcomes = queue.SimpleQueue()
        failures: list[DeliveryError] = []
        for member in self._members:
            try:
                member.enqueue(alerts, outcomes)
            except DeliveryError as error:
                failures.append(error)
        while len(failures) < len(self._members):
            try:
                failure = outcomes.get(timeout=deadline.remaining())
            except queue.Empty:
                failure = DeliveryError(DeliveryErrorReason.TIMEOUT, "no complete answer in time", retryable=True)
                raise _combine_errors([*failures, failure]) from None
            if failure is None:
                return
            failures.append(failure)
        raise _combine_errors(failures)

    def _alerts(self, notification: Notification) -> list[_PostableAlert]:
        return [
            document
            for alert in notification_text.worst_first(notification.alerts)
            for document in self._with_former(alert, notification)
        ]

    def _with_former(self, alert: Alert, notification: Notification) -> Iterator[_PostableAlert]:
        """Yield `alert`, then the end of its former severity: an alert with other labels is a new alert there."""
        current = self._alert(alert, notification)
        yield current
        former = self._posted_alerts.get(alert.fingerprint)
        if former is not None and former.labels != current.labels:
            yield replace(former, ends_ns=max(former.starts_ns, self._clock.boottime_ns()))

    def _alert(self, alert: Alert, notification: Notification) -> _PostableAlert:
        now = Now.read(self._clock)
        offset = _clock_offset(now)
        ends = now.wall + self.alert_expiry_seconds if alert.resolved is None else alert.resolved
        return _PostableAlert(
            prometheus.prometheus_labels(alert, notification),
            prometheus.prometheus_annotations(alert, notification),
            prometheus.label_value(alert.identity.generator_url),
            starts_ns=round((alert.fired - offset) * SECOND_NS),
            ends_ns=round((max(alert.fired, ends) - offset) * SECOND_NS),
        )

    def _remember(self, notification: Notification) -> None:
        for alert in notification.alerts:
            if alert.resolved is None:
                self._posted_alerts[alert.fingerprint] = self._alert(alert, notification)
            else:
                self._posted_alerts.pop(alert.fingerprint, None)


class _ClusterMember:
    """One Alertmanager with its own thread and its pending alerts.

    An alert is pending until the member accepts it, a newer state replaces it, or its `endsAt` has passed. Alerts that
    no member has accepted are not pending: the outbox still has them. Pending alerts are in memory only: after the
    daemon was killed, a member resolves them at their `endsAt`.
    """

    def __init__(
        self, endpoint: http.Endpoint, clock: Clock, alert_expiry_seconds: float, timeout_seconds: float
    ) -> None:
        self.host = endpoint.host
        self._endpoint = endpoint
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._expiry_ns = round(alert_expiry_seconds * SECOND_NS)
        self._changed = threading.Condition()
        self._pending: dict[str, tuple[int, _PostableAlert]] = {}  # by labels: expiry (CLOCK_BOOTTIME ns) and alert
        self._waiting: list[_PostOutcomes] = []  # queues that get the outcome of the next post
        self._failures_in_row = 0
        self._pause_seconds = RETRY_SECONDS
        self._closing = False
        self._thread: threading.Thread | None = None
        self._learned_offset: float | None = None  # of the member's clock, as `_clock_offset`

    def enqueue(self, alerts: list[_PostableAlert], outcomes: _PostOutcomes) -> None:
        """Add `alerts` to the pending ones and put the outcome of the next post into `outcomes`; return at once.

        Raises:
            DeliveryError: as of `start_thread`.
        """
        expires_ns = self._clock.boottime_ns() + self._expiry_ns
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"alertmanager-{self.host}", daemon=True)
                start_thread(thread)  # it waits for the lock
                self._thread = thread
            for alert in alerts:
                self._pending.pop(_labels_key(alert), None)  # the newest alerts are the last ones
                self._pending[_labels_key(alert)] = (expires_ns, alert)
            for key in list(self._pending)[: -max(_MAX_PENDING_ALERTS, len(alerts))]:
                del self._pending[key]
            self._waiting.append(outcomes)
            self._changed.notify()

    def discard(self, alerts: list[_PostableAlert]) -> None:
        """Remove `alerts` from the pending ones, except those that a newer state has replaced."""
        with self._changed:
            for alert in alerts:
                if (pending := self._pending.get(_labels_key(alert))) is not None and pending[1] is alert:
                    del self._pending[_labels_key(alert)]

    def close(self) -> None:
        """End the thread after the current post."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting or self._closing, self._pause_seconds if self._pending else None
                )
                if self._closing:
                    return
                now_ns = self._clock.boottime_ns()
                self._pending = {key: pending for key, pending in self._pending.items() if pending[0] > now_ns}
                batch, waiting = self._pending.copy(), self._waiting
                self._waiting = []
            failure = self._post([alert for _, alert in batch.values()]) if batch else None
            retry_after = None if failure is None else failure.retry_after_seconds
            self._failures_in_row = 0 if failure is None else self._failures_in_row + 1
            asked_seconds = min(retry_after or 0.0, self._expiry_ns / SECOND_NS)
            self._pause_seconds = max(_retry_wait_seconds(self._failures_in_row), asked_seconds)
            with self._changed:
                if failure is None or not failure.retryable:
                    # Alerts replaced since then are still pending.
                    self._pending = {
                        key: pending for key, pending in self._pending.items() if batch.get(key) is not pending
                    }
            for outcomes in waiting:
                outcomes.put(failure)

    def _post(self, alerts: list[_PostableAlert]) -> DeliveryError | None:
        try:
            answer = self._post_by_its_clock(alerts)
            http.raise_for_status(answer, self.host)
            if answer.body.strip():  # api/v2/openapi.yaml, postAlerts: the answer 200 has no schema
                return http.undocumented_answer(self.host, answer.status, "an empty body")
        except DeliveryError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an edge like the worker's: a defect must not end the thread
            return DeliveryError(DeliveryErrorReason.INTERNAL, type(error).__name__, retryable=True)
        return None

    def _post_by_its_clock(self, alerts: list[_PostableAlert]) -> http.HttpResponse:
        # Posts again, with other times, if the answer shows that the member's clock is another one.
        offset = self._offset()
        answer = self._endpoint.post(_body(alerts, offset), _HEADERS, self._timeout_seconds)
        if answer.date is None:
            return answer
        self._learned_offset = answer.date - self._clock.boottime_ns() / SECOND_NS
        if abs(self._learned_offset - offset) <= _MAX_SKEW_SECONDS:
            return answer
        return self._endpoint.post(_body(alerts, self._learned_offset), _HEADERS, self._timeout_seconds)

    def _offset(self) -> float:
        own, learned = _clock_offset(Now.read(self._clock)), self._learned_offset
        return own if learned is None or abs(learned - own) <= _MAX_SKEW_SECONDS else learned


def _retry_wait_seconds(failures: int) -> float:
    """Return the seconds until a member is tried again: random, as all hosts of a fleet lose it at the same moment.

    Never much later: a member that lags behind another one can notify of an alert that has ended.
    """
    upper_seconds = RETRY_SECONDS if failures <= 1 else 2 * RETRY_SECONDS
    return random.uniform(upper_seconds / 2, upper_seconds)  # noqa: S311 - spreads load, no secret


def _labels_key(alert: _PostableAlert) -> str:
    return json.dumps(alert.labels, sort_keys=True)


def _body(alerts: list[_PostableAlert], clock_offset: float) -> bytes:
    documents = [alert.to_json(clock_offset) for alert in alerts]
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":")).encode()


def _clock_offset(now: Now) -> float:
    return now.wall - now.boottime_ns / SECOND_NS


def _rfc3339(at_ns: int, clock_offset: float) -> str:
    return notification_text.rfc3339(round(at_ns / SECOND_NS + clock_offset, 3))


def _combine_errors(failures: list[DeliveryError]) -> DeliveryError:
    """Return one error for `failures`: retryable if one of them is."""
    chosen = next((failure for failure in failures if failure.retryable), failures[0])
    waits = [failure.retry_after_seconds for failure in failures]
    return DeliveryError(
        chosen.reason,
        "; ".join(dict.fromkeys(str(failure) for failure in failures)),
        retryable=chosen.retryable,
        retry_after_seconds=None if None in waits else min(wait for wait in waits if wait is not None),
    )
