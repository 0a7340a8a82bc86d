"""Changes of rules that make their baselines start anew, for `check` and reload."""

from __future__ import annotations

from collections.abc import Iterable

from watchdog.errors import Problem
from watchdog.rules.language.rule import Rule
from watchdog.rules.language.ruleset_hash import baseline_digest

_MESSAGE = "learning starts anew: metric, stat, window, by, where, only_if, floor, season or fire changed"


def notes_on_changed_baselines(former: Iterable[Rule], rules: Iterable[Rule]) -> list[Problem]:
    """Return a note for each of `rules` whose baseline does not go on from that of the rule of its id in `former`."""
    before = {rule.id: baseline_digest(rule) for rule in former if rule.baseline is not None}
    return [
        Problem(rule.file, rule.line, "rule.baseline", _MESSAGE)
        for rule in rules
        if rule.baseline is not None and before.get(rule.id, baseline_digest(rule)) != baseline_digest(rule)
    ]
