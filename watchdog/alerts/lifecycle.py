"""The life of alerts: takes the verdicts of each tick and makes transitions.

Each (rule, labels) goes from inactive over pending (for the time of `for`) to firing; when the condition has been false
for `keep_firing_for`, the alert is resolved. Each severity has its own timers (`severity_timer.py`). A firing alert
never disappears without a transition: if its rule is removed, or changed so that it no longer has such an instance, the
alert is resolved.

Times are CLOCK_BOOTTIME, passed in; the wall clock, which may step, is copied into alerts for display only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, Transition, TransitionKind
from watchdog.alerts.command_request import CommandAnswer
from watchdog.alerts.instance import AlertInstance, InstanceState
from watchdog.clock import Now
from watchdog.errors import DocumentError
from watchdog.rules.engine.judge import Verdict
from watchdog.rules.language.rule import Labels, Rule


class Lifecycle:
    """All instances that are pending or firing."""

    def __init__(self, host: str) -> None:
        """Start without instances; `host`: the name of this host in summaries, which may change."""
        self.host = host
        self._at_ns: int | None = None
        self._instances: dict[tuple[str, Labels], AlertInstance] = {}
        self._retired: list[tuple[Alert, str]] = []  # alerts that a reload ended, with the reason
        self._removed: set[str] = set()
        self._failures: list[Exception] = []
        self._needing_evidence: dict[str, AlertInstance] = {}

    def advance(self, verdicts: Iterable[Verdict], now: Now) -> list[Transition]:
        """Apply the verdicts of one tick; return the transitions, in the order of `verdicts`.

        An instance without a verdict keeps its state, as if it were unknown. An error in one instance does not affect
        the others: `take_failures` returns it, and the transition of that instance comes with a later tick.
        """
        passed_ns = 0 if self._at_ns is None else now.boottime_ns - self._at_ns
        self._at_ns = now.boottime_ns
        self._needing_evidence = {}
        transitions = self._resolve_retired(now)
        unjudged = dict(self._instances)
        for verdict in verdicts:
            key = verdict.rule.id, verdict.labels
            unjudged.pop(key, None)
            if key not in self._instances:
                if verdict.breached is None:
                    continue
                new = self._instances[key] = AlertInstance(*key, now, verdict.rule.row_conditions)
                self._needing_evidence[new.fingerprint] = new
            try:
                transitions += self._advance(key, verdict, passed_ns, now)
            except Exception as error:  # noqa: BLE001 - the edge of one alert: the others must go on
                error.add_note(f"with an alert of rule {verdict.rule.id}")
                self._failures.append(error)
        for instance in unjudged.values():
            instance.skip_time(passed_ns)
        return transitions

    def instances_needing_evidence(self) -> list[AlertInstance]:
        """Return the instances that began, fired or rose in severity in the newest tick."""
        return list(self._needing_evidence.values())

    def add_command_lines(self, answers: Iterable[CommandAnswer]) -> list[Alert]:
        """Add command lines to the evidence of their instances, before `advance`; return the alerts that changed."""
        changed = {}
        for request, found in answers:
            instance = self._instances.get((request.rule, request.labels))
            if instance is not None and instance.add_command_line(request.pid, found) and instance.alert is not None:
                changed[instance.fingerprint] = instance.alert
        return list(changed.values())

    def with_current_alerts(self, transitions: Iterable[Transition]) -> list[Transition]:
        """Return `transitions` of the newest tick with the present alerts of their instances."""
        alerts = {instance.fingerprint: instance.alert for instance in self.instances_needing_evidence()}
        return [replace(one, alert=alerts.get(one.alert.fingerprint) or one.alert) for one in transitions]

    @property
    def has_running_timer(self) -> bool:
        """Return whether a timer of any instance runs; a restart must then know when this daemon ended."""
        return any(instance.has_running_timer for instance in self._instances.values())

    def take_failures(self) -> list[Exception]:
        """Return the errors since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def active_keys(self) -> list[tuple[str, Labels]]:
        """Return rule id and labels of each pending or firing instance: each needs a verdict every tick."""
        return list(self._instances)

    def firing_keys(self) -> list[tuple[str, Labels]]:
        """Return rule id and labels of each firing instance."""
        return [key for key, instance in self._instances.items() if instance.alert is not None]

    @property
    def pending_count(self) -> int:
        """Return the number of pending instances. Any thread may ask: `list` copies them in one step."""
        return sum(instance.alert is None for instance in list(self._instances.values()))

    def firing_alerts(self) -> Mapping[str, Alert]:
        """Return the firing alerts of the newest tick, by fingerprint."""
        alerts = [alert for alert, _ in self._retired]
        alerts += [instance.alert for instance in self._instances.values() if instance.alert is not None]
        return {alert.fingerprint: alert for alert in alerts}

    def copy_instances(self) -> list[InstanceState]:
        """Return a copy of each pending or firing instance."""
        return [instance.copy_state() for instance in self._instances.values()]

    def reason_to_end(self, alert: Alert, rule: Rule | None) -> str:
        """Return the reason for which a reload to `rule` (None: removed) ends a firing alert, "" if it goes on."""
        instance = self._instances.get((alert.rule, alert.labels))
        if instance is None:
            return ""
        return wording.RULE_REMOVED if rule is None else instance.reason_to_end(rule)

    def mark_all_changed(self) -> None:
        """Mark every instance as changed: its saved state may be gone."""
        for instance in self._instances.values():
            instance.has_changed = True

    def take_changes(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return by fingerprint the document of each instance that changed since the last call, None if it is gone."""
        changed = [instance for instance in self._instances.values() if instance.has_changed]
        changes: dict[str, dict[str, Any] | None] = dict.fromkeys(self._removed)
        changes |= {instance.fingerprint: instance.to_json() for instance in changed}
        self._removed = set()
        for instance in changed:
            instance.has_changed = False
        return list(changes.items())

    def restore(
        self,
        saved: Iterable[Mapping[str, Any]],
        rules: Iterable[Rule],
        at_ns: int,
        boottime_shift_ns: int,
        downtime_ns: int,
    ) -> int:
        """Load the instances that a former daemon saved; return the number of unreadable ones, which are skipped.

        An alert that was firing goes on firing, without a transition. `boottime_shift_ns` converts the saved
        CLOCK_BOOTTIME to that of `at_ns`. `downtime_ns`, the time since the last commit, counts for no timer: there was
        no measurement.
        """
        self._at_ns = at_ns
        unreadable = 0
        for document in saved:
            try:
                instance = AlertInstance.from_json(document, boottime_shift_ns)
            except DocumentError:
                unreadable += 1
                continue
            instance.skip_time(downtime_ns)
            self._instances[instance.rule, instance.labels] = instance
        self.replace_rules(rules)
        return unreadable

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Keep the instances that `rules` still have, with their timers; the others resolve with the next tick.

        Alerts get the receivers of their new rules at once, so that no notification goes to the former ones.
        """
        by_id = {rule.id: rule for rule in rules}
        for key, instance in list(self._instances.items()):
            rule = by_id.get(instance.rule)
            reason = wording.RULE_REMOVED if rule is None else instance.apply_rule(rule)
            if reason:
                del self._instances[key]
                if instance.alert is None:
                    self._removed.add(instance.fingerprint)
                else:
                    self._retired.append((instance.alert, reason))
            elif rule is not None and instance.alert is not None:
                instance.alert = replace(instance.alert, receivers=rule.receivers, send_resolved=rule.send_resolved)

    def _advance(self, key: tuple[str, Labels], verdict: Verdict, passed_ns: int, now: Now) -> list[Transition]:
        instance = self._instances[key]
        instance.advance(verdict, now.boottime_ns, passed_ns)
        kind = instance.update_alert(verdict, self.host, now)
        if (error := instance.take_summary_error()) is not None:
            self._failures.append(error)
        if instance.note_evidence_request(kind):
            self._needing_evidence[instance.fingerprint] = instance
        if instance.is_inactive or kind is TransitionKind.RESOLVED:
            del self._instances[key]
            self._removed.add(instance.fingerprint)
        return [Transition(kind, instance.alert)] if kind is not None and instance.alert is not None else []

    def _resolve_retired(self, now: Now) -> list[Transition]:
        transitions = [
            Transition(TransitionKind.RESOLVED, alert.resolved_at(now, reason)) for alert, reason in self._retired
        ]
        self._removed.update(alert.fingerprint for alert, _ in self._retired)
        self._retired = []
        return transitions
