"""One instance of a rule that is pending or firing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, AlertState, TransitionKind, fingerprint
from watchdog.alerts.evidence import Evidence, number_to_json
from watchdog.alerts.severity_timer import SeverityTimer
from watchdog.clock import SECOND_NS, Now
from watchdog.errors import document_errors
from watchdog.rules.engine.judge import Verdict
from watchdog.rules.language.rule import OVERFLOW_LABELS, Labels, Rule, Severity

_WORTH_SAVING = 0.01  # of a peak: so exact is the one that is told after a crash


class AlertInstance:
    """What is remembered of one (rule, labels), from the tick that made it true to the one that resolves it."""

    def __init__(self, rule: str, labels: Labels, now: Now) -> None:
        """Start at the tick in which the condition became true."""
        self.rule = rule
        self.labels = labels
        self.fingerprint = fingerprint(rule, labels)
        self.alert: Alert | None = None  # the newest one; None while pending
        self.has_changed = True  # since it was last saved
        self._stages: dict[Severity, SeverityTimer] = {}
        self._since_ns = now.boottime_ns
        self._started = now.wall
        self._value = 0.0
        self._saved_peak: float | None = None
        self._failure: Exception | None = None
        self._evidence: Evidence | None = None  # while pending; a firing alert has it

    @property
    def severity(self) -> Severity | None:
        """Return the worst severity that fires, None while pending or resolved."""
        return max((severity for severity, stage in self._stages.items() if stage.is_active), default=None)

    @property
    def is_inactive(self) -> bool:
        """Tell whether there is nothing left to remember."""
        return not self._stages

    @property
    def has_running_timer(self) -> bool:
        """Tell whether a timer of it runs."""
        return any(stage.has_running_timer for stage in self._stages.values())

    @property
    def threshold_ratio(self) -> float:
        """Return how many times its limit the value is: which of two alerts to look into first."""
        limit = self.alert.threshold if self.alert is not None else 0.0
        return self._value / limit if limit else self._value

    def add_evidence(self, evidence: Evidence) -> None:
        """Take in evidence of the newest tick; what it lacks and was taken before is kept."""
        self.has_changed = True
        self._evidence = evidence if self._evidence is None else self._evidence.updated_with(evidence)
        if self.alert is not None:
            self.alert = replace(self.alert, evidence=self._evidence)

    def take_summary_error(self) -> Exception | None:
        """Return why its summary could not be written, if that was since the last call."""
        failure, self._failure = self._failure, None
        return failure

    def skip_time(self, passed_ns: int) -> None:
        """Let time pass that nothing is known of: a tick that says nothing, or none at all."""
        for stage in self._stages.values():
            self._freeze(stage, passed_ns)

    def advance(self, verdict: Verdict, at_ns: int, passed_ns: int) -> None:
        """Take in what a tick says, severity by severity."""
        before = [(severity, stage.is_active, stage.cleared_ns is None) for severity, stage in self._stages.items()]
        for severity in verdict.rule.thresholds.fire:
            self._step(severity, verdict, at_ns, passed_ns)
        after = [(severity, stage.is_active, stage.cleared_ns is None) for severity, stage in self._stages.items()]
        self.has_changed |= before != after
        if (verdict.complete or verdict.breached is not None) and not math.isnan(verdict.value):
            self._value = verdict.value

    def _step(self, severity: Severity, verdict: Verdict, at_ns: int, passed_ns: int) -> None:
        stage = self._stages.get(severity)
        fires = verdict.breached is not None and verdict.breached >= severity
        holds = verdict.not_cleared is not None and verdict.not_cleared >= severity
        if stage is None:
            if not fires:
                return
            stage = self._stages[severity] = SeverityTimer(at_ns)
        if fires or (stage.is_active and holds):
            stage.mark_breached(at_ns, verdict.rule.for_ns)
        elif not verdict.complete:
            self._freeze(stage, passed_ns)
        elif stage.mark_cleared(at_ns, verdict.rule.keep_firing_for_ns):
            del self._stages[severity]

    def _freeze(self, stage: SeverityTimer, passed_ns: int) -> None:
        self.has_changed |= stage.skip_time(passed_ns)

    def update_alert(self, verdict: Verdict, host: str, now: Now) -> TransitionKind | None:
        """Bring the alert up to date after `advance`; return what happened to it that people may have to hear of."""
        kind = self._tell(verdict, host, now)
        if self.alert is not None and (self._saved_peak is None or _grown(self._saved_peak, self.alert.peak)):
            self.has_changed = True
        return kind

    def _tell(self, verdict: Verdict, host: str, now: Now) -> TransitionKind | None:
        rule, was, severity = verdict.rule, self.alert, self.severity
        if was is None:
            if severity is None:
                return None
            reason = wording.breach_reason(rule, severity)
            self.alert = self._alert(rule, severity, reason, host, now.boottime_ns, fired=now.wall, resolved=None)
            return TransitionKind.FIRING
        if severity is None:
            reason = wording.clear_reason(rule, was.severity, verdict.reason)
            self.alert = self._alert(
                rule, was.severity, reason, host, now.boottime_ns, fired=was.fired, resolved=now.wall
            )
            return TransitionKind.RESOLVED
        kind, reason = None, was.reason
        if severity > was.severity:
            kind, reason = TransitionKind.SEVERITY_RAISED, wording.breach_reason(rule, severity)
        elif severity < was.severity:
            kind, reason = TransitionKind.SEVERITY_LOWERED, wording.clear_reason(rule, was.severity, verdict.reason)
        self.alert = self._alert(rule, severity, reason, host, now.boottime_ns, fired=was.fired, resolved=None)
        return kind

    def apply_rule(self, rule: Rule) -> bool:
        """Tell whether `rule`, newly loaded, still speaks of this instance; drop severities that it no longer has."""
        if self.labels != OVERFLOW_LABELS and {name for name, _ in self.labels} != set(rule.by):
            return False
        kept = {severity: stage for severity, stage in self._stages.items() if severity in rule.thresholds.fire}
        self.has_changed |= len(kept) < len(self._stages)
        self._stages = kept
        return not self.is_inactive and (self.alert is None or self.severity is not None)

    def to_json(self) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads; count it as saved."""
        self._saved_peak = None if self.alert is None else self.alert.peak
        pending = self._evidence if self.alert is None else None
        return {
            "rule": self.rule,
            "labels": self.labels,
            "since_ns": self._since_ns,
            "started": self._started,
            "value": number_to_json(self._value),
            "severity_timers": {severity.label: stage.to_json() for severity, stage in self._stages.items()},
            "alert": None if self.alert is None else self.alert.to_json(),
            "evidence": None if pending is None else pending.to_json(),
        }

    @classmethod
    @document_errors()
    def from_json(cls, document: Mapping[str, Any], boottime_shift_ns: int) -> Self:
        """Return the instance that `to_json` wrote, its CLOCK_BOOTTIME values moved by `boottime_shift_ns`.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        labels = tuple((name, value) for name, value in document["labels"])
        instance = cls(document["rule"], labels, Now(document["since_ns"] + boottime_shift_ns, document["started"]))
        instance._value = float(document["value"])
        stages = document["severity_timers"].items()
        instance._stages = {
            Severity[label.upper()]: SeverityTimer.from_json(stage, boottime_shift_ns) for label, stage in stages
        }
        instance.alert = None if document["alert"] is None else Alert.from_json(document["alert"])
        instance._evidence = Evidence.from_json(document.get("evidence"))
        if instance.alert is not None:
            instance._evidence, instance._saved_peak = instance.alert.evidence, instance.alert.peak
        instance.has_changed = bool(boottime_shift_ns)
        return instance

    def _alert(
        self,
        rule: Rule,
        severity: Severity,
        reason: str,
        host: str,
        at_ns: int,
        *,
        fired: float,
        resolved: float | None,
    ) -> Alert:
        worst = max if rule.thresholds.above or self.labels == OVERFLOW_LABELS else min
        peak = self._value if self.alert is None else worst(self.alert.peak, self._value)
        since = (at_ns - self._since_ns) / SECOND_NS
        return Alert(
            rule=rule.id,
            labels=self.labels,
            fingerprint=self.fingerprint,
            state=AlertState.FIRING if resolved is None else AlertState.RESOLVED,
            severity=severity,
            summary=self._summary(rule, severity, host, peak, since),
            value=self._value,
            threshold=rule.thresholds.fire[severity],
            peak=peak,
            started=self._started,
            fired=fired,
            resolved=resolved,
            reason=reason,
            receivers=rule.receivers,
            runbook=rule.runbook,
            format=wording.value_format(rule),
            duration_seconds=None if resolved is None else since,
            evidence=self._evidence,
        )

    def _summary(self, rule: Rule, severity: Severity, host: str, peak: float, since: float) -> str:
        try:
            return wording.render_summary(
                rule, self.labels, severity, host, value=self._value, peak=peak, since_seconds=since
            )
        except Exception as error:  # noqa: BLE001 - the edge of one summary: the alert must be told without it
            error.add_note(f"in the summary of rule {rule.id}")
            self._failure = error
            return wording.fallback_summary(rule, severity, self._value, error)


def _grown(saved: float, peak: float) -> bool:
    """Tell whether a peak is worth to be written down: one that creeps up must not cost the disk a write each tick."""
    return peak != saved and abs(peak - saved) >= _WORTH_SAVING * abs(saved)
