"""One pending or firing instance of a rule."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, AlertState, TransitionKind, fingerprint
from watchdog.alerts.baseline_facts import facts_from_json, facts_to_json
from watchdog.alerts.boottimes import Boottimes
from watchdog.alerts.evidence import Evidence, number_to_json
from watchdog.alerts.instance_absence import Absence, AbsenceEffect
from watchdog.alerts.severity_timer import SeverityTimer
from watchdog.clock import SECOND_NS, Now
from watchdog.errors import document_errors
from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.rules.engine.judge import NEW_NORMAL, ONLY_IF_NOT_MET, Verdict
from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.engine.presence import Presence
from watchdog.rules.engine.selection import can_select, is_excluded
from watchdog.rules.language.rule import OVERFLOW_LABELS, Absent, Condition, Labels, Rule, Severity

_MIN_OVERFLOW_GROWTH = 2
_MIN_PEAK_CHANGE = 0.01  # of the saved peak: after a crash the peak is exact to this share


@dataclass(frozen=True, slots=True)
class InstanceState:
    """A copy of an instance for commands.

    `alert`: None while pending. `value`: the newest one. `since_ns`: CLOCK_BOOTTIME of the start of its condition;
    `started`: the same by the wall clock. `timers`: by severity. `absent_since_ns`: since when the group is
    absent, of a pending instance that waits for `absent_for`; else None.
    """

    rule: str
    labels: Labels
    fingerprint: str
    alert: Alert | None
    value: float
    since_ns: int
    started: float
    timers: Mapping[Severity, SeverityTimer]
    evidence: Evidence | None
    absent_since_ns: int | None = None


class AlertInstance:
    """State of one (rule, labels), from the tick that makes the condition true to the tick that resolves it."""

    def __init__(self, rule: str, labels: Labels, now: Now, where: tuple[Condition, ...] | None = None) -> None:
        """Begin at `now`, the tick in which the condition became true; `where`: of the rule, None if unknown."""
        self.rule = rule
        self.labels = labels
        self.fingerprint = fingerprint(rule, labels)
        self.alert: Alert | None = None  # the newest one; None while pending
        self.has_changed = True  # since it was last saved
        self._timers: dict[Severity, SeverityTimer] = {}
        self._absence = Absence(where)
        self._waits_for_absence = False  # in the newest tick
        self._reason = ""  # of the newest change where it is the absence of the group
        self._since_ns = now.boottime_ns
        self._started = now.wall
        self._value = 0.0
        self._saved_peak: float | None = None
        self._summary_error: Exception | None = None
        self._facts: BaselineFacts | None = None  # of the newest transition by a baseline
        self._evidence: Evidence | None = None  # while pending; later the alert has it
        self._evidence_value = math.inf  # of the tick in which evidence was requested
        self._base_summary: str | None = None  # of the newest tick: without the account

    @property
    def severity(self) -> Severity | None:
        """Return the worst active severity, None while pending or resolved."""
        return max((severity for severity, timer in self._timers.items() if timer.is_active), default=None)

    @property
    def is_inactive(self) -> bool:
        """Return whether no severity is pending or active."""
        return not self._timers

    @property
    def has_running_timer(self) -> bool:
        """Return whether any of its timers runs."""
        return self._absence.is_long or any(timer.has_running_timer for timer in self._timers.values())

    @property
    def threshold_ratio(self) -> float:
        """Return value divided by threshold: evidence is collected first where it is largest."""
        threshold = self.alert.threshold if self.alert is not None else 0.0
        return self._value / threshold if threshold else self._value

    def copy_state(self) -> InstanceState:
        """Return a copy that later ticks do not change."""
        return InstanceState(
            self.rule,
            self.labels,
            self.fingerprint,
            self.alert,
            self._value,
            self._since_ns,
            self._started,
            {severity: copy.copy(timer) for severity, timer in self._timers.items()},
            self._evidence,
            self._absence.since_ns if self._waits_for_absence else None,
        )

    def add_evidence(self, evidence: Evidence) -> None:
        """Add evidence of the newest tick; earlier evidence fills its gaps."""
        self.has_changed = True
        self._evidence = evidence if self._evidence is None else self._evidence.updated_with(evidence)
        if self.alert is not None:
            self.alert = replace(self.alert, evidence=self._evidence)
            if self._base_summary is not None:
                self.alert = replace(self.alert, summary=self._with_account(self._base_summary))

    def note_evidence_request(self, kind: TransitionKind | None) -> bool:
        """Return whether the change `kind` of the newest tick needs evidence.

        It does when the alert fires or gets worse, and when an overflow has twice the groups of its evidence.
        """
        has_grown = self.labels == OVERFLOW_LABELS and self._value >= _MIN_OVERFLOW_GROWTH * self._evidence_value
        if kind not in {TransitionKind.FIRING, TransitionKind.SEVERITY_RAISED} and not has_grown:
            return False
        self._evidence_value = self._value
        return True

    @property
    def unread_pid(self) -> int | None:
        """Return the process whose command line the evidence waits for, None if for none."""
        return None if self._evidence is None else self._evidence.unread_pid

    def add_command_line(self, pid: int, found: CommandLine | UnreadReason | None) -> bool:
        """Add the command line of the process to the evidence, if that waits for it; return whether it changed."""
        if self._evidence is None:
            return False
        evidence = self._evidence.with_command_line(pid, found)
        if evidence == self._evidence:
            return False
        self.has_changed = True
        self._evidence = evidence
        if self.alert is not None:
            self.alert = replace(self.alert, evidence=evidence)
        return True

    def take_summary_error(self) -> Exception | None:
        """Return the error of rendering the summary since the last call, None if there was none."""
        error, self._summary_error = self._summary_error, None
        return error

    def skip_time(self, passed_ns: int) -> None:
        """Exclude `passed_ns` from all timers: a time without a verdict."""
        self.has_changed |= self._absence.skip_time(passed_ns)
        for timer in self._timers.values():
            self._skip_time(timer, passed_ns)

    def advance(self, verdict: Verdict, at_ns: int, passed_ns: int) -> None:
        """Apply the verdict of one tick to the timer of each severity."""
        if verdict.is_displaced:
            self._timers, self._reason, self.has_changed = {}, wording.DISPLACED, True
            return
        before = self._timer_states()
        self._reason = ""
        self.has_changed |= self._absence.update(verdict, at_ns, passed_ns)
        if verdict.complete and verdict.reason == NEW_NORMAL:
            self._timers, self._reason = {}, NEW_NORMAL
            return
        effect = self._absence.effect(verdict, at_ns, is_active=self.severity is not None)
        is_held = effect is AbsenceEffect.HOLD and self.severity is None
        self._waits_for_absence = is_held and verdict.rule.absent is Absent.FIRE
        match effect:
            case AbsenceEffect.NONE:
                for severity in verdict.rule.thresholds.fire:
                    self._advance_timer(severity, verdict, at_ns, passed_ns)
            case AbsenceEffect.FIRE:
                self._fire_absent(verdict, at_ns)
            case AbsenceEffect.END:
                self._end_absent(verdict)
            case AbsenceEffect.HOLD:
                self._hold_absent(verdict, at_ns)
        self.has_changed |= before != self._timer_states()
        if effect is not AbsenceEffect.HOLD and self._is_measured(verdict):
            self._value = verdict.value

    def _timer_states(self) -> list[tuple[Severity, bool, bool, int]]:
        return [
            (severity, timer.is_active, timer.cleared_ns is None, timer.recent_hits)
            for severity, timer in self._timers.items()
        ]

    def _is_measured(self, verdict: Verdict) -> bool:
        """Return whether the value of the verdict is one of the rule: known, and neither gated out nor excluded."""
        if not (verdict.complete or verdict.breached is not None) or math.isnan(verdict.value):
            return False
        return verdict.reason != ONLY_IF_NOT_MET and not self._absence.has_where_changed

    def _fire_absent(self, verdict: Verdict, at_ns: int) -> None:
        self._reason = wording.absent_reason(verdict.rule)
        worst = verdict.breached or min(verdict.rule.thresholds.fire)
        for severity in verdict.rule.thresholds.fire:
            if severity <= worst:
                self._timers.setdefault(severity, SeverityTimer(at_ns)).mark_breached(at_ns, for_ns=0)

    def _end_absent(self, verdict: Verdict) -> None:
        self._reason = wording.absence_end_reason(
            verdict.rule,
            has_rows=verdict.group.presence is Presence.UNSELECTED,
            is_excluded=self._absence.has_where_changed,
        )
        self._timers = {}

    def _hold_absent(self, verdict: Verdict, at_ns: int) -> None:
        """Let an instance wait that begins with the absence of its group."""
        if not self._timers:
            self._timers[min(verdict.rule.thresholds.fire)] = SeverityTimer(at_ns)

    def _advance_timer(self, severity: Severity, verdict: Verdict, at_ns: int, passed_ns: int) -> None:
        timer = self._timers.get(severity)
        is_breached = verdict.breached is not None and verdict.breached >= severity
        is_not_cleared = verdict.not_cleared is not None and verdict.not_cleared >= severity
        if timer is None:
            if not is_breached:
                return
            timer = self._timers[severity] = SeverityTimer(at_ns)
        hits = verdict.rule.hits
        if hits is None:
            timer.recent_hits = 0  # of a rule that had `hits` before a reload
        elif is_breached or verdict.complete:
            is_breached = timer.add_tick(hits, is_hit=is_breached)
        if is_breached or (timer.is_active and is_not_cleared):
            timer.mark_breached(at_ns, verdict.rule.for_ns, is_held=verdict.is_held)
        elif not verdict.complete:
            self._skip_time(timer, passed_ns)
        elif timer.mark_cleared(at_ns, verdict.rule.keep_firing_for_ns):
            del self._timers[severity]

    def _skip_time(self, timer: SeverityTimer, passed_ns: int) -> None:
        self.has_changed |= timer.skip_time(passed_ns)

    def update_alert(self, verdict: Verdict, host: str, now: Now) -> TransitionKind | None:
        """Bring the alert up to date after `advance`; return the kind of its change, None without one."""
        kind = self._set_alert(verdict, host, now)
        if self.alert is not None and _must_save_peak(self._saved_peak, self.alert.peak):
            self.has_changed = True
        return kind

    def _set_alert(self, verdict: Verdict, host: str, now: Now) -> TransitionKind | None:
        rule, previous, severity = verdict.rule, self.alert, self.severity
        if previous is None:
            if severity is None:
                return None
            reason = self._breach_reason(verdict, severity)
            self.alert = self._alert(rule, severity, reason, host, now, resolved=None)
            return TransitionKind.FIRING
        if severity is None:
            reason = self._reason or wording.clear_reason(rule, previous.severity, verdict.reason, self._facts)
            self.alert = self._alert(rule, previous.severity, reason, host, now, resolved=now.wall)
            return TransitionKind.RESOLVED
        kind, reason = None, previous.reason
        if severity > previous.severity:
            kind = TransitionKind.SEVERITY_RAISED
            reason = self._breach_reason(verdict, severity)
        elif severity < previous.severity:
            kind = TransitionKind.SEVERITY_LOWERED
            reason = wording.clear_reason(rule, previous.severity, verdict.reason, self._facts)
        self.alert = self._alert(rule, severity, reason, host, now, resolved=None)
        return kind

    def _breach_reason(self, verdict: Verdict, severity: Severity) -> str:
        if verdict.facts is not None:
            self._facts = verdict.facts
        return self._reason or wording.breach_reason(
            verdict.rule, severity, self._value, self._facts, is_lower_bound=verdict.is_lower_bound
        )

    def apply_rule(self, rule: Rule) -> str:
        """Apply the reloaded rule: drop the severities that it no longer has.

        Return "" if the instance goes on, else the reason of its end.
        """
        if reason := self.reason_to_end(rule):
            return reason
        self.has_changed |= self._absence.set_where(rule, self.labels)
        kept = self._kept_timers(rule)
        self.has_changed |= len(kept) < len(self._timers)
        self._timers = kept
        return ""

    def reason_to_end(self, rule: Rule) -> str:
        """Return the reason for which the reloaded `rule` ends the instance, "" if it goes on."""
        if self.labels != OVERFLOW_LABELS:
            if {name for name, _ in self.labels} != set(rule.by):
                return wording.RULE_CHANGED
            if not can_select(rule.where, self.labels) or is_excluded(rule.exclusions, self.labels):
                return wording.NO_LONGER_SELECTED
        kept = self._kept_timers(rule)
        goes_on = bool(kept) and (self.alert is None or any(timer.is_active for timer in kept.values()))
        return "" if goes_on else wording.RULE_CHANGED

    def _kept_timers(self, rule: Rule) -> dict[Severity, SeverityTimer]:
        return {severity: timer for severity, timer in self._timers.items() if severity in rule.thresholds.fire}

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`; the peak in it counts as saved."""
        self._saved_peak = None if self.alert is None else self.alert.peak
        pending = self._evidence if self.alert is None else None
        return {
            "rule": self.rule,
            "labels": self.labels,
            "since_ns": self._since_ns,
            "started": self._started,
            "value": number_to_json(self._value),
            "absence": self._absence.to_json(),
            "severity_timers": {severity.label: timer.to_json() for severity, timer in self._timers.items()},
            "alert": None if self.alert is None else self.alert.to_json(),
            "evidence": None if pending is None else pending.to_json(),
            "baseline": None if self._facts is None else facts_to_json(self._facts),
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
        timers = document["severity_timers"].items()
        instance._timers = {
            Severity[label.upper()]: SeverityTimer.from_json(timer, boottime_shift_ns) for label, timer in timers
        }
        if "absence" in document:  # not in files of version 0.1.0
            instance._absence = Absence.from_json(document["absence"], boottime_shift_ns)
        if document["alert"] is not None:
            instance.alert = Alert.from_json(document["alert"]).shifted(boottime_shift_ns)
        instance._evidence = Evidence.from_json(document.get("evidence"))
        if document.get("baseline") is not None:
            instance._facts = facts_from_json(document["baseline"])
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
        now: Now,
        *,
        resolved: float | None,
    ) -> Alert:
        worst = max if rule.thresholds.above or self.labels == OVERFLOW_LABELS else min
        peak = self._value if self.alert is None else worst(self.alert.peak, self._value)
        since = (now.boottime_ns - self._since_ns) / SECOND_NS
        boottimes = self._boottimes(now, resolved)
        limit = wording.limit_of(rule, severity, self._facts)
        return Alert(
            rule=rule.id,
            labels=self.labels,
            fingerprint=self.fingerprint,
            state=AlertState.FIRING if resolved is None else AlertState.RESOLVED,
            severity=severity,
            summary=self._summary(rule, severity, host, peak, since),
            value=self._value,
            threshold=limit.value,
            threshold_text=limit.text,
            peak=peak,
            started=self._started,
            fired=now.wall if self.alert is None else self.alert.fired,
            resolved=resolved,
            reason=reason,
            receivers=rule.receivers,
            runbook=rule.runbook,
            format=wording.value_format(rule),
            duration_seconds=None if resolved is None else since,
            evidence=self._evidence,
            boottimes=boottimes,
            send_resolved=rule.send_resolved,
        )

    def _boottimes(self, now: Now, resolved: float | None) -> Boottimes | None:
        resolved_ns = None if resolved is None else now.boottime_ns
        if self.alert is None:
            return Boottimes(self._since_ns, now.boottime_ns, resolved_ns)
        former = self.alert.boottimes
        return None if former is None else replace(former, resolved_ns=resolved_ns)

    def _with_account(self, summary: str) -> str:
        found = self._evidence
        if found is None:
            return summary
        if found.left_out is not None:
            return summary + wording.accounts_text(found.left_out.by_user, found.left_out.user_count)
        top = found.top_process
        return summary if top is None else summary + wording.account_text(dict(self.labels), top.user, top.unit)

    def _summary(self, rule: Rule, severity: Severity, host: str, peak: float, since: float) -> str:
        self._base_summary = self._rendered_summary(rule, severity, host, peak, since)
        return self._with_account(self._base_summary)

    def _rendered_summary(self, rule: Rule, severity: Severity, host: str, peak: float, since: float) -> str:
        try:
            return wording.render_summary(
                rule,
                self.labels,
                severity,
                host,
                value=self._value,
                peak=peak,
                since_seconds=since,
                facts=self._facts,
            )
        except Exception as error:  # noqa: BLE001 - the edge of one summary: the alert must be sent all the same
            error.add_note(f"in the summary of rule {rule.id}")
            self._summary_error = error
            return wording.fallback_summary(rule, wording.limit_of(rule, severity, self._facts), self._value, error)


def _must_save_peak(saved: float | None, peak: float) -> bool:
    # A slow rise must not cost a disk write each tick.
    return saved is None or (peak != saved and abs(peak - saved) >= _MIN_PEAK_CHANGE * abs(saved))
