"""`[rule.baseline]`: limits that each group learns by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config.document import Table
from watchdog.config.durations import format_duration, parse_duration
from watchdog.rules.language.rule import BaselineSpec, Season, Severity
from watchdog.rules.language.thresholds import ValueDomain, read_level

_HOUR_NS = 3_600 * SECOND_NS
_DIRECTIONS = ("above", "below")
_DEFAULT_RARITY: Final = MappingProxyType({Severity.WARNING: "30d", Severity.CRITICAL: "365d"})
_MIN_RARITY, _MAX_RARITY = "1d", "3650d"
_MIN_LEARN, _MAX_LEARN = "1h", "28d"


def read_baseline(rule: Table, domain: ValueDomain | None) -> BaselineSpec | None:
    """Return the baseline of `rule`, None without one; problems are noted in its table."""
    if rule.value("baseline", None) is None:
        return None
    table = rule.table("baseline")
    if rule.has_problem("baseline"):
        return None
    above = table.text("fire", "above", choices=_DIRECTIONS) == "above"
    spec = BaselineSpec(
        floor=_read_floor(table, domain, above=above),
        rarity_hours=_read_rarity(table),
        learn_hours=math.ceil(table.duration("learn", "1d", minimum=_MIN_LEARN, maximum=_MAX_LEARN) / _HOUR_NS),
        season=Season(table.text("season", Season.DAY.value, choices=[one.value for one in Season])),
        above=above,
    )
    table.reject_unknown_keys()
    return spec


def _read_floor(table: Table, domain: ValueDomain | None, *, above: bool) -> float:
    value = table.value("floor", None)
    if value is None:
        purpose = "the level below which nobody is notified" if above else "the lowest usual level whose fall counts"
        table.add_problem("floor", f"missing: give {purpose}")
        return 1.0
    level = read_level(table, "floor", value, domain)
    if table.has_problem("floor"):
        return 1.0
    if math.isnan(level):  # the metric has a problem
        return 1.0
    if level <= 0:
        table.add_problem("floor", f"must be above 0, not {level:g}: values below it are noise")
    elif domain is not None and level >= domain.maximum:
        table.add_problem("floor", f"is never reached: no value is above {domain.maximum:g}")
    return level


def _read_rarity(table: Table) -> Mapping[Severity, float]:
    """Return the hours of each severity, the least severe first."""
    given = table.value("rarity", None)
    if given is None:
        return {severity: parse_duration(text) / _HOUR_NS for severity, text in _DEFAULT_RARITY.items()}
    if not isinstance(given, dict):
        return {Severity.WARNING: _read_hours(table, "rarity", Severity.WARNING)}
    levels = table.table("rarity")
    rarity = {one: _read_hours(levels, one.label, one) for one in Severity if one.label in levels}
    levels.reject_unknown_keys()
    if not given:
        table.add_problem("rarity", "names no severity: give warning, critical or both")
    warning, critical = (rarity.get(severity) for severity in Severity)
    if warning is not None and critical is not None and critical <= warning and not levels.has_problem("critical"):
        shown = format_duration(round(warning * _HOUR_NS))
        levels.add_problem("critical", f"must be rarer than the warning's {shown}: give a longer time")
    return rarity or {Severity.WARNING: parse_duration(_MIN_RARITY) / _HOUR_NS}


def _read_hours(table: Table, key: str, severity: Severity) -> float:
    # A default is a placeholder here: the key is there.
    return table.duration(key, _DEFAULT_RARITY[severity], minimum=_MIN_RARITY, maximum=_MAX_RARITY) / _HOUR_NS
