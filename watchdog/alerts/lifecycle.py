"""The life of alerts: verdicts in, transitions out.

Each (rule, labels) goes from inactive over pending (`for`) to firing, and when it has been clear for `keep`, it is
resolved; each severity has timers of its own (`stage.py`). What fires is never forgotten without a transition that says
so: a rule that is gone or changed past recognition resolves its alerts.

Times are CLOCK_BOOTTIME, passed in; the wall clock is copied into alerts for display, and may step as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind
from watchdog.alerts.instance import AlertInstance
from watchdog.clock import Now
from watchdog.errors import DocumentError
from watchdog.rules.engine.judge import Verdict
from watchdog.rules.language.rule import Labels, Rule


class Lifecycle:
    """Every instance that is pending or firing."""

    def __init__(self, host: str) -> None:
        """Start without instances; `host` is what summaries call this machine."""
        self._host = host
        self._at_ns: int | None = None
        self._instances: dict[tuple[str, Labels], AlertInstance] = {}
        self._retired: list[tuple[Alert, str]] = []  # alerts whose rule no longer speaks of them, and why
        self._gone: set[str] = set()
        self._failures: list[Exception] = []
        self._fresh: dict[str, AlertInstance] = {}

    def advance(self, verdicts: Iterable[Verdict], now: Now) -> list[Transition]:
        """Take in what one tick says; return what happened to alerts, in the order of `verdicts`.

        An instance that no verdict speaks of stays as it is, as if it were unknown. One that fails takes no other with
        it, and does not lose what happened to it: the next tick tells it. `take_failures` has the reason.
        """
        passed_ns = 0 if self._at_ns is None else now.boottime_ns - self._at_ns
        self._at_ns = now.boottime_ns
        self._fresh = {}
        transitions = self._resolve_retired(now.wall)
        silent = dict(self._instances)
        for verdict in verdicts:
            key = verdict.rule.id, verdict.labels
            silent.pop(key, None)
            if key not in self._instances:
                if verdict.breached is None:
                    continue
                new = self._instances[key] = AlertInstance(*key, now)
                self._fresh[new.fingerprint] = new
            try:
                transitions += self._advance(key, verdict, passed_ns, now)
            except Exception as error:  # noqa: BLE001 - the edge of one alert: what happens to others must be told
                error.add_note(f"with an alert of rule {verdict.rule.id}")
                self._failures.append(error)
        for instance in silent.values():
            instance.skip_time(passed_ns)
        return transitions

    def instances_needing_evidence(self) -> list[AlertInstance]:
        """Return the instances that in the newest tick began, fired or got worse: their evidence is to be taken."""
        return list(self._fresh.values())

    def with_current_alerts(self, transitions: Iterable[Transition]) -> list[Transition]:
        """Return `transitions` of the newest tick, with what their instances have taken in since."""
        alerts = {instance.fingerprint: instance.alert for instance in self.instances_needing_evidence()}
        return [replace(one, alert=alerts.get(one.alert.fingerprint) or one.alert) for one in transitions]

    @property
    def has_running_timer(self) -> bool:
        """Tell whether the timer of any instance runs: a restart has then to know when this one ended."""
        return any(instance.has_running_timer for instance in self._instances.values())

    def take_failures(self) -> list[Exception]:
        """Return what went wrong since the last call."""
        failures, self._failures = self._failures, []
        return failures

    def active_keys(self) -> list[tuple[str, Labels]]:
        """Return rule id and labels of everything that is pending or firing: what needs a verdict each tick."""
        return list(self._instances)

    def firing_alerts(self) -> Mapping[str, Alert]:
        """Return every alert that fires, by fingerprint, as of the newest tick."""
        alerts = [alert for alert, _ in self._retired]
        alerts += [instance.alert for instance in self._instances.values() if instance.alert is not None]
        return {alert.fingerprint: alert for alert in alerts}

    def mark_all_changed(self) -> None:
        """Let every instance count as changed: what was saved of it may be gone."""
        for instance in self._instances.values():
            instance.has_changed = True

    def take_changes(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return by fingerprint what `restore` needs of each instance whose state changed since the last call.

        None stands for an instance that is gone.
        """
        changed = [instance for instance in self._instances.values() if instance.has_changed]
        changes: dict[str, dict[str, Any] | None] = dict.fromkeys(self._gone)
        changes |= {instance.fingerprint: instance.to_json() for instance in changed}
        self._gone = set()
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
        """Take back what a former daemon saved; return how much of it could not be read, and is forgotten.

        What was firing fires on, and is no news. `boottime_shift_ns` turns its CLOCK_BOOTTIME into that of `at_ns`; the
        `downtime_ns` since the last that is known of it count for no timer: nobody looked.
        """
        self._at_ns = at_ns
        forgotten = 0
        for document in saved:
            try:
                instance = AlertInstance.from_json(document, boottime_shift_ns)
            except DocumentError:
                forgotten += 1
                continue
            instance.skip_time(downtime_ns)
            self._instances[instance.rule, instance.labels] = instance
        self.replace_rules(rules)
        return forgotten

    def replace_rules(self, rules: Iterable[Rule]) -> None:
        """Keep what `rules` still speak of, timers included; the rest resolves with the next tick.

        Who is to hear of an alert is what its new rule says, at once: nobody is told by mistake until the next tick.
        """
        by_id = {rule.id: rule for rule in rules}
        for key, instance in list(self._instances.items()):
            rule = by_id.get(instance.rule)
            if rule is None or not instance.apply_rule(rule):
                del self._instances[key]
                if instance.alert is None:
                    self._gone.add(instance.fingerprint)
                else:
                    self._retired.append(
                        (instance.alert, wording.RULE_REMOVED if rule is None else wording.RULE_CHANGED)
                    )
            elif instance.alert is not None:
                instance.alert = replace(instance.alert, receivers=rule.receivers)

    def _advance(self, key: tuple[str, Labels], verdict: Verdict, passed_ns: int, now: Now) -> list[Transition]:
        instance = self._instances[key]
        instance.advance(verdict, now.boottime_ns, passed_ns)
        kind = instance.update_alert(verdict, self._host, now)
        if (failure := instance.take_summary_error()) is not None:
            self._failures.append(failure)
        if kind in {TransitionKind.FIRING, TransitionKind.SEVERITY_RAISED}:
            self._fresh[instance.fingerprint] = instance
        if instance.is_inactive or kind is TransitionKind.RESOLVED:
            del self._instances[key]
            self._gone.add(instance.fingerprint)
        return [Transition(kind, instance.alert)] if kind is not None and instance.alert is not None else []

    def _resolve_retired(self, wall: float) -> list[Transition]:
        transitions = [
            Transition(TransitionKind.RESOLVED, replace(alert, state=AlertState.RESOLVED, resolved=wall, reason=reason))
            for alert, reason in self._retired
        ]
        self._gone.update(alert.fingerprint for alert, _ in self._retired)
        self._retired = []
        return transitions
