"""The difference that a reload makes: rules, and the alerts that would end, begin again, or change receivers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from watchdog.alerts import wording
from watchdog.alerts.alert import Alert
from watchdog.config.durations import format_duration
from watchdog.control.reload_handler import AlertEffect, ReloadAnswer
from watchdog.daemon.configuration import Configuration, changed_settings
from watchdog.daemon.pipeline import Pipeline, PipelineView
from watchdog.routing.routes import Router
from watchdog.rules.engine.judge import Verdict
from watchdog.rules.language.changed_baselines import notes_on_changed_baselines
from watchdog.rules.language.rule import OVERFLOW_LABELS, Rule

RESOLVES, BEGINS_AGAIN = "resolves", "begins again"
CHANGES_SEVERITY, CHANGES_RECEIVERS = "changes severity", "changes receivers"


def reload_changes(
    pipeline: Pipeline, former: Configuration, new: Configuration, restart_keys: Sequence[str], *, dry_run: bool
) -> ReloadAnswer:
    """Return the differences between two configurations, and their effects on the firing alerts of `pipeline`.

    To be called before the reload.
    """
    before, after = ({rule.id: rule for rule in one.rules} for one in (former, new))
    router = Router(new.settings.routing, new.routes, set(new.receivers))
    with pipeline.view() as view:
        alerts = list(view.lifecycle.firing_alerts().values())
    notes = (*new.notes, *notes_on_changed_baselines(former.rules, new.rules))
    effects: list[AlertEffect] = []
    for alert in alerts:
        with pipeline.view() as view:  # a tick waits for one alert at most
            effects += _effects(view, alert, after.get(alert.rule), router)
    return ReloadAnswer(
        accepted=True,
        dry_run=dry_run,
        notes=tuple(str(note.as_note()) for note in notes),
        rules=len(new.rules),
        shipped=new.shipped_rules,
        origin=new.rules_origin,
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
        settings=tuple(changed_settings(former, new)),
        restart_keys=tuple(restart_keys),
        alerts=tuple(effects),
    )


def _effects(view: PipelineView, alert: Alert, rule: Rule | None, router: Router) -> Iterator[AlertEffect]:
    former = view.engine.find_rule(alert.rule)
    if former != rule and (reason := view.lifecycle.reason_to_end(alert, rule)):
        yield _effect(alert, RESOLVES, reason)
    elif rule is not None:
        if former is not None and former != rule and alert.labels != OVERFLOW_LABELS:
            yield from _judged_effect(view, alert, rule)
        yield from _routing_effect(view, alert, rule, router)


def _judged_effect(view: PipelineView, alert: Alert, rule: Rule) -> Iterator[AlertEffect]:
    verdict = view.engine.preview(rule, alert.labels)
    if verdict is None:
        window = format_duration(rule.window_ns)
        yield _effect(alert, BEGINS_AGAIN, f"its window starts anew: nothing changes until it is filled after {window}")
        return
    yield from _severity_effect(alert, rule, verdict)


def _severity_effect(alert: Alert, rule: Rule, verdict: Verdict) -> Iterator[AlertEffect]:
    if not verdict.complete and verdict.breached is None:
        return
    kept = max((one for one in (verdict.breached, verdict.not_cleared) if one is not None), default=None)
    wait = f" after keep_firing_for of {format_duration(rule.keep_firing_for_ns)}" if rule.keep_firing_for_ns else ""
    if kept is None:
        limit = wording.clear_text(rule, min(rule.thresholds.clear))
        direction = "below" if rule.thresholds.above else "above"
        yield _effect(alert, RESOLVES, f"its value is {direction} {limit}{wait}")
    elif (verdict.breached or kept) > alert.severity:
        yield _effect(alert, CHANGES_SEVERITY, f"{alert.severity.label} to {(verdict.breached or kept).label}")
    elif kept < alert.severity:
        yield _effect(alert, CHANGES_SEVERITY, f"{alert.severity.label} to {kept.label}{wait}")


def _routing_effect(view: PipelineView, alert: Alert, rule: Rule, router: Router) -> Iterator[AlertEffect]:
    before = set(view.grouping.notified_severities(alert.fingerprint))
    marked = replace(view.identity.mark(alert), receivers=rule.receivers)
    after = {one.receiver for one in router.destinations(marked)}
    if before != after:
        changes = [*(f"-{name}" for name in sorted(before - after)), *(f"+{name}" for name in sorted(after - before))]
        yield _effect(alert, CHANGES_RECEIVERS, " ".join(changes))


def _effect(alert: Alert, effect: str, detail: str) -> AlertEffect:
    return AlertEffect(alert.fingerprint, alert.rule, dict(alert.labels), effect, detail)
