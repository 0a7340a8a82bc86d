"""Exceptions of a rule: `[[rule.except]]` tables, each with an owner and a reason, mostly with a last day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace

from watchdog.config.document import Table
from watchdog.config.suggestions import quote_value
from watchdog.errors import Problem
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.named_lists import NamedLists
from watchdog.rules.language.rule import Rule, RuleException


def read_exceptions(table: Table, lists: NamedLists) -> tuple[RuleException, ...]:
    """Return the exceptions in the `[[rule]]` table; problems are noted in them. `lists`: as in `read_where`."""
    return tuple(_read_exception(one, lists) for one in table.tables("except"))


def _read_exception(table: Table, lists: NamedLists) -> RuleException:
    where = read_where(table, lists=lists)
    if not where and not table.table("where").data:
        table.add_problem("where", "needs at least one condition: the rule would count nothing")
    exception = RuleException(
        where=where,
        owner=table.text("owner"),
        reason=table.text("reason"),
        until=_read_until(table),
        file=table.document.file,
        line=table.line,
    )
    table.reject_unknown_keys()
    return exception


def _read_until(table: Table) -> dt.date | None:
    value = table.value("until", None)
    if value is None or (isinstance(value, dt.date) and not isinstance(value, dt.datetime)):
        return value
    try:
        return dt.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        shown = "a time of day" if isinstance(value, dt.datetime | dt.time) else quote_value(value)
        table.add_problem("until", f"must be a day like 2027-03-31, not {shown}")
        return None


def without_ended_exceptions(rules: Iterable[Rule], wall: float) -> tuple[Rule, ...]:
    """Return `rules` with the exceptions that are in force at `wall`, wall-clock seconds."""
    return tuple(
        replace(rule, exceptions=kept) if len(kept := _in_force(rule.exceptions, wall)) < len(rule.exceptions) else rule
        for rule in rules
    )


def notes_on_ended_exceptions(rules: Iterable[Rule], wall: float) -> list[Problem]:
    """Return a note for each exception that has ended at `wall`, wall-clock seconds."""
    return [
        Problem(
            one.file,
            one.line,
            "rule.except.until",
            f"the exception of {rule.id} ended on {one.until}: remove it, or set a later day (owner: {one.owner})",
        )
        for rule in rules
        for one in rule.exceptions
        if one.has_ended(wall)
    ]


def _in_force(exceptions: Sequence[RuleException], wall: float) -> tuple[RuleException, ...]:
    return tuple(exception for exception in exceptions if not exception.has_ended(wall))
