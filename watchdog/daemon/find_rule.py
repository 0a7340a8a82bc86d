"""The rule that a request names."""

from __future__ import annotations

from watchdog.config import suggestions
from watchdog.daemon.pipeline import OWN_ALERTS, PipelineView
from watchdog.errors import UsageError
from watchdog.rules.language.rule import Rule

_MAX_LISTED = 10  # ids that a message lists


def find_rule(view: PipelineView, rule_id: str) -> Rule:
    """Return the rule in force with this id.

    Raises:
        UsageError: there is none.
    """
    rule = view.engine.find_rule(rule_id)
    if rule is not None:
        return rule
    name = suggestions.quote_value(rule_id)
    if rule_id in OWN_ALERTS:
        raise UsageError(
            f"{name} has no rule: it is an alert of the daemon about itself",
            remedy="see bpf-watchdog alerts and bpf-watchdog status",
        )
    ids = [one.id for one in view.engine.rules]
    if len(ids) > _MAX_LISTED and not suggestions.is_near(rule_id, ids):
        raise UsageError(f"unknown rule {name}", remedy="see bpf-watchdog rules")
    raise UsageError(suggestions.unknown_name("rule", rule_id, ids))
