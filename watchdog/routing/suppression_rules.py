"""Suppressions that watchdog.toml has: mute times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.config.settings import SettingsDocument
from watchdog.routing.alert_matching import readable_dimensions
from watchdog.routing.mute_times import MuteTime, read_mute_times
from watchdog.rules.language.rule import Rule


@dataclass(frozen=True, slots=True)
class SuppressionRules:
    """The suppressions of a configuration."""

    mute_times: tuple[MuteTime, ...] = ()


def read_suppression_rules(settings: SettingsDocument, rules: Sequence[Rule] | None = None) -> SuppressionRules:
    """Return the suppressions of `settings`; problems are added to its document. `rules`: None if unknown here."""
    named = (name for table in settings.mutes for name in _names_in(table, "where"))
    dimensions = readable_dimensions(dict(settings.values.labels), rules, named)
    return SuppressionRules(read_mute_times(settings.mutes, dimensions))


def _names_in(table: Table, key: str) -> Iterator[str]:
    where = table.data.get(key)
    yield from where if isinstance(where, dict) else ()
