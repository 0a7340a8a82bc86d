"""Exceptions of rules while the daemon runs: they end on their day, and those that nothing needs are reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from watchdog.clock import SECOND_NS, Now
from watchdog.rules.language.exceptions import without_ended_exceptions
from watchdog.rules.language.rule import Rule, RuleException

UNUSED_AFTER_NS = 7 * 86_400 * SECOND_NS


class ExceptionWatch:
    """Decides which exceptions are in force. A start or a reload begins anew."""

    def __init__(self, rules: Sequence[Rule], now: Now, log: logging.Logger) -> None:
        """Take the rules of a configuration, with all their exceptions."""
        self._log = log
        self.take_rules(rules, now)

    def take_rules(self, rules: Sequence[Rule], now: Now) -> None:
        """Take the rules of another configuration."""
        self._rules = tuple(rules)
        self._has_days = any(one.until is not None for rule in rules for one in rule.exceptions)
        self._since_ns: int | None = now.boottime_ns
        self.rules_in_force = without_ended_exceptions(self._rules, now.wall)
        """The rules, with the exceptions that are in force."""

    def has_changed(self, now: Now) -> bool:
        """Return whether an exception has ended since the last call: then `rules_in_force` have changed."""
        if not self._has_days:
            return False
        former, self.rules_in_force = self.rules_in_force, without_ended_exceptions(self._rules, now.wall)
        for before, rule in zip(former, self.rules_in_force, strict=True):
            for exception in before.exceptions:
                if exception not in rule.exceptions:
                    self._log.warning("exception ended: %s", _describe(rule, exception))
        return former != self.rules_in_force

    def report_unused(self, find_unused: Callable[[], Sequence[tuple[Rule, RuleException]]], now_ns: int) -> None:
        """Log the exceptions that have excluded no row so far, once, after seven days; `now_ns`: CLOCK_BOOTTIME."""
        if self._since_ns is None or now_ns < self._since_ns + UNUSED_AFTER_NS:
            return
        self._since_ns = None
        for rule, exception in find_unused():
            self._log.warning("exception never used within 7d, remove it: %s", _describe(rule, exception))


def _describe(rule: Rule, exception: RuleException) -> str:
    file = f"{exception.file}:{exception.line}"
    return f"rule={rule.id} file={file} owner={exception.owner!r} reason={exception.reason!r} until={exception.until}"
