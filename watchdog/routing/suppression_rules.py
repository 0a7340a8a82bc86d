"""Suppressions that files have: mute times and inhibition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.config.settings import SettingsDocument
from watchdog.routing.alert_matching import readable_dimensions
from watchdog.routing.inhibition import Inhibition, inhibitions_of_rules, read_inhibitions
from watchdog.routing.mute_times import MuteTime, read_mute_times
from watchdog.rules.language.rule import Rule


@dataclass(frozen=True, slots=True)
class SuppressionRules:
    """The suppressions of a configuration."""

    mute_times: tuple[MuteTime, ...] = ()
    inhibitions: tuple[Inhibition, ...] = ()


def read_suppression_rules(settings: SettingsDocument, rules: Sequence[Rule] | None = None) -> SuppressionRules:
    """Return the suppressions of `settings` and `rules`; problems are added to the document of `settings`.

    `rules`: all that are in force, None if they are unknown here.
    """
    named = [name for table in settings.mutes for name in _names_in(table, "where")]
    for table in settings.inhibitions:
        named += (*_names_in(table, "source"), *_names_in(table, "target"), *_names_in(table, "equal"))
    dimensions = readable_dimensions(dict(settings.values.labels), rules, named)
    inhibitions = read_inhibitions(settings.inhibitions, dimensions)
    return SuppressionRules(
        read_mute_times(settings.mutes, dimensions), (*inhibitions, *inhibitions_of_rules(rules or ()))
    )


def _names_in(table: Table, key: str) -> Iterator[str]:
    value = table.data.get(key)
    names = value if isinstance(value, dict | list) else ()
    yield from (name for name in names if isinstance(name, str))
