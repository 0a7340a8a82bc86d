"""Mute time intervals: notifications of matching alerts are withheld at given hours of the week, in a named time zone.

A mute time holds while the clock of its zone shows a time within it, the end excluded. So on the days on which that
clock is set, its length differs by the hour that is skipped or comes twice. Source: Alertmanager, timeinterval.go.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from watchdog.config.document import Table
from watchdog.config.suggestions import quote_value
from watchdog.measure.catalogue import Dimension
from watchdog.routing.alert_matching import matches_alert
from watchdog.routing.suppression import Suppression, SuppressionKind
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.rule import Condition, Severity

if TYPE_CHECKING:  # this import loads numpy, which reading settings does not need
    from watchdog.alerts.alert import Alert

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 24 * 60
_DAY: Final = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIMES: Final = re.compile(
    rf"(?P<days>{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*)?"
    r"(?P<space> )?(?:(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d))?",
    re.ASCII | re.IGNORECASE,
)
_FORM: Final = 'write it like "Mon-Fri 22:00-06:00", "Sat,Sun" or "00:00-06:00"'


@dataclass(frozen=True, slots=True)
class WeeklyTimes:
    """Hours on some days: `days`: 0 is Monday; `start`, `end`: minutes of the day, the end excluded.

    An end that is not after the start is on the next day, which need not be one of `days`.
    """

    days: frozenset[int]
    start: int
    end: int

    def contains(self, day: int, minute: int) -> bool:
        """Return whether they contain `minute` of the weekday `day`."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        has_begun, goes_on = minute >= self.start, minute < self.end
        return (has_begun and day in self.days) or (goes_on and (day - 1) % len(_DAYS) in self.days)


@dataclass(frozen=True, slots=True)
class MuteTime:
    """One `[[mute]]`.

    `where`: of the alerts; without a condition on the severity, critical alerts are not muted.
    """

    name: str
    times: tuple[WeeklyTimes, ...]
    zone: dt.tzinfo
    where: tuple[Condition, ...]

    @property
    def suppression(self) -> Suppression:
        """Return the mute time as the cause of a suppression."""
        return Suppression(SuppressionKind.MUTE, self.name)

    def holds(self, wall: float) -> bool:
        """Return whether it holds at `wall`, wall-clock seconds."""
        try:
            local = dt.datetime.fromtimestamp(wall, self.zone)
        except (OSError, OverflowError, ValueError):  # a clock far beyond every calendar
            return False
        minute = local.hour * 60 + local.minute
        return any(one.contains(local.weekday(), minute) for one in self.times)

    def matches(self, alert: Alert) -> bool:
        """Return whether it mutes `alert` while it holds."""
        names_severity = any(condition.dimension == "severity" for condition in self.where)
        return (names_severity or alert.severity is not Severity.CRITICAL) and matches_alert(self.where, alert)


def parse_times(text: str) -> WeeklyTimes:
    """Return the times in `text`: "Mon-Fri 22:00-06:00"; without days every day, without hours the whole day.

    Raises:
        ValueError: it is malformed, or empty; the message has the remedy.
    """
    found = _TIMES.fullmatch(" ".join(text.split()).replace(", ", ","))
    if found is None or not (found["days"] or found["start"]) or _has_wrong_space(found):
        raise ValueError(f"not a time of the week: {quote_value(text)}; {_FORM}")
    days: str | None = found["days"]
    start, end = str(found["start"] or ""), str(found["end"] or "")
    if not start:
        return WeeklyTimes(_parse_days(days), 0, _DAY_MINUTES)
    begins, ends = _parse_minute(start), _parse_minute(end)
    if begins in {ends, _DAY_MINUTES}:
        raise ValueError(f'{quote_value(f"{start}-{end}")} is empty; the whole day is "00:00-24:00"')
    return WeeklyTimes(_parse_days(days), begins, ends)


def _has_wrong_space(found: re.Match[str]) -> bool:
    return bool(found["space"]) != bool(found["days"] and found["start"])


def _parse_days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(len(_DAYS)))
    return frozenset(day for part in text.lower().split(",") for day in _parse_day_range(part))


def _parse_day_range(text: str) -> Iterator[int]:
    first, _, last = text.partition("-")
    begin, end = _DAYS.index(first), _DAYS.index(last or first)
    for day in range(begin, end + 1 + (len(_DAYS) if end < begin else 0)):
        yield day % len(_DAYS)


def _parse_minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    total = hour * 60 + minute
    if minute >= 60 or total > _DAY_MINUTES:  # noqa: PLR2004 - minutes of an hour
        raise ValueError(f"{quote_value(text)} is not a time of day, 00:00 to 24:00")
    return total


def read_mute_times(tables: Iterable[Table], dimensions: dict[str, Dimension]) -> tuple[MuteTime, ...]:
    """Return the `[[mute]]` tables as values; problems are noted in them. `dimensions`: of the alerts."""
    mute_times, lines = [], dict[str, int]()
    for table in tables:
        mute_time = _read_mute_time(table, dimensions)
        mute_times.append(mute_time)
        line = lines.setdefault(mute_time.name, table.line)
        if line != table.line and not table.has_problem("name") and not table.has_problem("times"):
            name = quote_value(mute_time.name)
            message = f"{name} is already the mute time of line {line}: reasons and lists show mute times by name"
            table.add_problem("name", f"{message}; give each one its own name")
    return tuple(mute_times)


def _read_mute_time(table: Table, dimensions: dict[str, Dimension]) -> MuteTime:
    texts = (table.text("times"),) if isinstance(table.data.get("times"), str) else table.texts("times")
    if not texts and not table.has_problem("times"):
        table.add_problem("times", f"must not be empty; {_FORM}")
    times = []
    for index, text in enumerate(texts):
        try:
            times.append(parse_times(text))
        except ValueError as error:
            table.add_problem("times", str(error), index=index if isinstance(table.data["times"], list) else None)
    zone_name = table.text("zone", "UTC")
    mute_time = MuteTime(
        name=table.text("name", f"{', '.join(texts)} {zone_name}"),
        times=tuple(times),
        zone=_read_zone(table, zone_name),
        where=read_where(table, dimensions),
    )
    table.reject_unknown_keys()
    return mute_time


def _read_zone(table: Table, name: str) -> dt.tzinfo:
    if name != "UTC" and not table.has_problem("zone"):
        try:
            return ZoneInfo.no_cache(name)  # a reload takes changed rules of the zone
        except (KeyError, OSError, ValueError):
            message = f"this host has no time zone {quote_value(name)}"
            table.add_problem("zone", f'{message}: use a name like "Europe/Berlin", of the package tzdata')
    return dt.UTC
