"""The shipped rules beside the user's own: `[[override]]` tables, and the rules that stay in force.

An override names a shipped rule and changes single keys of it, or disables it. The watchdog's rules about itself stay
in force unless an override disables them: without them nobody is notified of its losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.settings import open_document
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.rule_source import RuleSource, overridden_source

OWN_PREFIX: Final = "watchdog-"
"""Prefix of the ids of the watchdog's rules about itself."""


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """One `[[override]]` that was read: its position, and whether it disables its rule."""

    file: str
    line: int
    is_enabled: bool


@dataclass
class Overrides:
    """The overrides of all files that were read so far, by rule id."""

    entries: dict[str, OverrideEntry] = field(default_factory=dict)

    @cached_property
    def shipped_tables(self) -> Mapping[str, Table]:
        """Return the tables of the shipped rules, as in their files, by id.

        Raises:
            ConfigError: a shipped file cannot be read.
        """
        tables: dict[str, Table] = {}
        for path in sorted(Path(shipped_rules_folder()).glob("*.toml")):
            for table in open_document(str(path), require_trust=False).root.tables("rule"):
                tables[table.text("id")] = table
        return tables

    def read(self, table: Table) -> Table | None:
        """Return the table of the changed rule, None if it is disabled or the override has a problem.

        Its keys have their lines in the override; keys of the shipped file have the line of its header.
        """
        identity = table.text("id")
        shipped_table = None if table.has_problem("id") else self.shipped_tables.get(identity)
        shipped: Mapping[str, Any] = {} if shipped_table is None else shipped_table.data
        is_off = shipped.get("enabled") is False
        is_enabled = table.boolean("enabled", default=not is_off)
        if table.has_problem("id"):
            return None
        if not shipped:
            table.add_problem("id", suggestions.unknown_name("shipped rule", identity, self.shipped_tables))
            return None
        if (earlier := self.entries.get(identity)) is not None:
            table.add_problem("id", f'"{identity}" is already overridden at {earlier.file}:{earlier.line}')
            return None
        self.entries[identity] = OverrideEntry(table.document.file, table.line, is_enabled)
        changes = {key: value for key, value in table.data.items() if key not in {"id", "enabled"}}
        if not is_enabled and "enabled" not in table:
            table.add_problem("id", "has no effect: the rule is off as shipped; add enabled = true")
            return None
        if not is_enabled:
            table.reject_unknown_keys()  # nothing else has an effect
            return None
        if not changes and not is_off and not table.has_problem("enabled"):
            table.add_problem("id", "changes nothing: give the keys to change, or enabled = false")
        return table.with_data({**_merged(shipped, changes), "enabled": True})

    def source_of(self, override: Table) -> RuleSource:
        """Return the source of the rule that `override`, which was read without a problem, changes."""
        return overridden_source(self.shipped_tables[str(override.data["id"])], override)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    # A table of the override changes single keys of the table: of `fire_above` and `where`, for example.
    merged = dict(base)
    for key, value in changes.items():
        former = merged.get(key)
        merged[key] = _merged(former, value) if isinstance(former, dict) and isinstance(value, dict) else value
    return merged
