"""Pending and firing alerts as answers for commands, copied from the stages between two ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, AlertState
from watchdog.alerts.instance import InstanceState
from watchdog.alerts.severity_timer import SeverityTimer
from watchdog.clock import SECOND_NS, Clock
from watchdog.control.alert_handlers import ActiveAlert, AlertDetail, AlertReceiver, TimerStatus
from watchdog.daemon.alert_receivers import AlertReceivers, KnownSeverities
from watchdog.daemon.pipeline import Pipeline
from watchdog.rules.engine.inspection import share_of_limit
from watchdog.rules.language.formats import FORMATS, format_number
from watchdog.rules.language.rule import OVERFLOW_LABELS, Rule, Severity
from watchdog.storage.reader import ReadableDatabase

_BATCH = 500  # alerts whose receivers are read while a tick waits


class ActiveAlerts:
    """Reads the pending and firing alerts of a pipeline."""

    def __init__(self, pipeline: Pipeline, clock: Clock, reader: ReadableDatabase) -> None:
        """Read `pipeline`, and deliveries by `reader`; ages of timers are those at the present of `clock`."""
        self._pipeline = pipeline
        self._deliveries = AlertReceivers(reader)
        self._clock = clock

    def list_alerts(self) -> list[ActiveAlert]:
        """Return all alerts: critical ones first, then warnings, then pending ones, each the nearest above its limit.

        Alerts of the daemon about its receivers and reloads are included. Reads the state file.
        """
        return self._list(with_receivers=True)

    def list_without_receivers(self) -> list[ActiveAlert]:
        """Return the answer of `list_alerts` without receivers; reads memory only."""
        return self._list(with_receivers=False)

    def _list(self, *, with_receivers: bool) -> list[ActiveAlert]:
        with self._pipeline.view() as view:
            instances = view.lifecycle.copy_instances()
            own = [*view.reload_alert.firing_alerts().values(), *view.outage_handler.firing_alerts().values()]
            rules = {rule.id: rule for rule in view.engine.rules}
            suppressed = dict(view.suppressed)
        firing = [*(one.alert for one in instances if one.alert is not None), *own]
        receivers = self._receivers(firing) if with_receivers else {}
        now_ns = self._clock.boottime_ns()
        alerts = [_of_instance(one, rules.get(one.rule), receivers, now_ns) for one in instances]
        alerts += [_of_alert(alert, None, (), receivers) for alert in own]
        alerts = [
            replace(one, suppressed_by=tuple(cause.describe() for cause in suppressed.get(one.fingerprint, ())))
            for one in alerts
        ]
        return sorted(alerts, key=_urgency)

    def read_alert(self, fingerprint: str) -> AlertDetail | None:
        """Return one alert with its evidence, None if it is not active."""
        return next(iter(self._details(one for one in self.list_alerts() if one.fingerprint == fingerprint)), None)

    def list_details(self, limit: int) -> tuple[list[AlertDetail], int]:
        """Return the first `limit` of `list_alerts` with their evidence, and the number of the others."""
        alerts = self.list_alerts()
        return self._details(alerts[:limit]), max(0, len(alerts) - limit)

    def _details(self, alerts: Iterable[ActiveAlert]) -> list[AlertDetail]:
        with self._pipeline.view() as view:
            instances = {one.fingerprint: one for one in view.lifecycle.copy_instances()}
            own = {**view.reload_alert.firing_alerts(), **view.outage_handler.firing_alerts()}
            rules = {rule.id: rule for rule in view.engine.rules}
            marked = view.identity.mark
        details = []
        for active in alerts:
            instance, rule = instances.get(active.fingerprint), rules.get(active.rule)
            alert = own.get(active.fingerprint) if instance is None else instance.alert
            alert = None if alert is None else marked(alert)
            evidence = instance.evidence if instance is not None else None
            details.append(
                AlertDetail(
                    active,
                    None if alert is None else alert.to_json(),
                    None if evidence is None else evidence.to_json(),
                    rule.runbook if rule is not None else alert.runbook if alert is not None else None,
                    rule.file if rule is not None else None,
                    rule.line if rule is not None else None,
                )
            )
        return details

    def _receivers(self, alerts: Sequence[Alert]) -> dict[str, tuple[AlertReceiver, ...]]:
        """Return the receivers of each alert, by its fingerprint; the targets of escalation that were notified too."""
        found: list[tuple[Alert, KnownSeverities]] = []
        for first in range(0, len(alerts), _BATCH):
            with self._pipeline.view() as view:
                for alert in alerts[first : first + _BATCH]:
                    severities = dict(view.grouping.notified_severities(alert.fingerprint))
                    severities |= dict.fromkeys(view.outage_handler.receivers_of(alert), alert.severity)
                    found.append((alert, severities))
        return self._deliveries.read(found)


def _urgency(alert: ActiveAlert) -> tuple[object, ...]:
    is_pending = alert.state == AlertState.PENDING
    share = -math.inf if alert.share is None else alert.share
    return is_pending, alert.severity != Severity.CRITICAL.label, -share, alert.rule, alert.fingerprint


def _of_instance(
    instance: InstanceState, rule: Rule | None, receivers: Mapping[str, tuple[AlertReceiver, ...]], now_ns: int
) -> ActiveAlert:
    timers = () if rule is None else timer_states(rule, instance, now_ns)
    if instance.alert is not None:
        return _of_alert(instance.alert, rule, timers, receivers)
    severity = max(instance.timers, default=Severity.WARNING)
    limit = finite(rule.thresholds.fire.get(severity)) if rule is not None else None
    return ActiveAlert(
        fingerprint=instance.fingerprint,
        rule=instance.rule,
        state=AlertState.PENDING.value,
        severity=severity.label,
        labels=dict(instance.labels),
        since=instance.started,
        fired=None,
        value=finite(instance.value),
        limit=finite(limit),
        value_text=_value_text(rule, instance, limit),
        limit_text=wording.fire_text(rule, severity) if rule is not None and limit is not None else "",
        share=_share(rule, limit, instance.value),
        summary="",
        reason="",
        timers=timers,
        receivers=(),
    )


def _of_alert(
    alert: Alert,
    rule: Rule | None,
    timers: tuple[TimerStatus, ...],
    receivers: Mapping[str, tuple[AlertReceiver, ...]],
) -> ActiveAlert:
    if alert.labels == OVERFLOW_LABELS:  # the value is a number of instances
        value_text = FORMATS["count"](alert.value)
    else:
        value_text = format_number(alert.format, alert.value, alert.threshold)
    return ActiveAlert(
        fingerprint=alert.fingerprint,
        rule=alert.rule,
        state=alert.state.value,
        severity=alert.severity.label,
        labels=dict(alert.labels),
        since=alert.started,
        fired=alert.fired,
        value=finite(alert.value),
        limit=finite(alert.threshold),
        value_text=value_text,
        limit_text=alert.limit.text,
        share=_share(rule, alert.threshold, alert.value) if alert.labels != OVERFLOW_LABELS else None,
        summary=alert.summary,
        reason=alert.reason,
        timers=timers,
        receivers=receivers.get(alert.fingerprint, ()),
    )


def timer_states(rule: Rule, instance: InstanceState, now_ns: int) -> tuple[TimerStatus, ...]:
    """Return the timers of an alert of `rule`, the least severe first."""
    if instance.absent_since_ns is not None:
        elapsed_ns = now_ns - instance.absent_since_ns
        return tuple(_running(one, "pending", elapsed_ns, rule.absent_for_ns) for one in sorted(instance.timers))
    return tuple(_timer_status(rule, *entry, now_ns) for entry in sorted(instance.timers.items()))


def _timer_status(rule: Rule, severity: Severity, timer: SeverityTimer, now_ns: int) -> TimerStatus:
    """Return the state of a timer of one alert of `rule` at `now_ns` of CLOCK_BOOTTIME."""
    if not timer.is_active and rule.hits is not None:
        hits = f"{timer.recent_hits.bit_count()} of {rule.hits.count} hits in {rule.hits.ticks} ticks"
        return TimerStatus(severity.label, "pending", None, None, hits)
    if not timer.is_active:
        return _running(severity, "pending", now_ns - timer.breached_since_ns, rule.for_ns)
    if timer.cleared_ns is not None:
        return _running(severity, "clearing", now_ns - timer.cleared_ns, rule.keep_firing_for_ns)
    return TimerStatus(severity.label, AlertState.FIRING.value, None, None)


def _share(rule: Rule | None, limit: float | None, value: float) -> float | None:
    if rule is None or limit is None:
        return None
    return finite(share_of_limit(limit, value, above=rule.thresholds.above))


def _running(severity: Severity, state: str, elapsed_ns: int, duration_ns: int) -> TimerStatus:
    elapsed_ns = max(0, min(elapsed_ns, duration_ns))
    return TimerStatus(severity.label, state, elapsed_ns / SECOND_NS, duration_ns / SECOND_NS)


def _value_text(rule: Rule | None, instance: InstanceState, limit: float | None) -> str:
    if rule is None or limit is None:
        return ""
    return format_number(wording.value_format(rule), instance.value, limit)


def finite(value: float | None) -> float | None:
    """Return `value` if JSON has it, else None."""
    return value if value is not None and math.isfinite(value) else None
