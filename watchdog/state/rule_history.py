"""How often the alerts of each rule began to fire within seven days, and when last: for people who adapt rules.

Times are of the wall clock, for display only; a clock that was set back leaves counts in the future, which are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from watchdog.storage.database import Database

HISTORY_HOURS: Final = 7 * 24
_HOUR: Final = 3_600


@dataclass(frozen=True, slots=True)
class FiringCount:
    """Firings of a rule: `last`: wall-clock seconds of the newest one, None without any; `count`: within 7 days."""

    last: float | None
    count: int


class RuleHistory:
    """The counts of all rules, by hour. For one thread at a time."""

    def __init__(self, database: Database) -> None:
        """Read the counts that a former daemon wrote.

        Raises:
            StoreError: the file cannot be read.
        """
        self._hours: dict[str, dict[int, tuple[int, float]]] = {}
        self._changed: set[tuple[str, int]] = set()
        with database.transaction() as connection:
            rows = connection.execute("SELECT rule, hour, firings, newest FROM rule_firings").fetchall()
        for rule, hour, firings, newest in rows:
            self._hours.setdefault(rule, {})[hour] = firings, newest

    def record_firings(self, rules: Iterable[str], wall: float) -> None:
        """Count one more firing of each of `rules` (ids, a rule for each of its alerts) at `wall`."""
        hour = int(wall // _HOUR)
        for rule in rules:
            hours = self._hours.setdefault(rule, {})
            hours[hour] = hours.get(hour, (0, wall))[0] + 1, wall
            self._changed.add((rule, hour))

    def firings_of(self, rule: str, wall: float) -> FiringCount:
        """Return the firings of a rule in the seven days before `wall`, to the hour."""
        hours, first = self._hours.get(rule, {}), int(wall // _HOUR) - HISTORY_HOURS
        count = sum(firings for hour, (firings, _) in hours.items() if hour >= first)
        return FiringCount(max((newest for _, newest in hours.values()), default=None), count)

    def write(self, connection: Connection, wall: float) -> None:
        """Write the changes since `mark_written`, and delete counts that are older than seven days but the newest."""
        connection.executemany(
            "INSERT INTO rule_firings (rule, hour, firings, newest) VALUES (?, ?, ?, ?) ON CONFLICT (rule, hour) "
            "DO UPDATE SET firings = excluded.firings, newest = excluded.newest",
            [(rule, hour, *self._hours[rule][hour]) for rule, hour in sorted(self._changed)],
        )
        first = int(wall // _HOUR) - HISTORY_HOURS
        for rule in {rule for rule, _ in self._changed}:
            hours = self._hours[rule]
            kept = {hour: entry for hour, entry in hours.items() if hour >= first or hour == max(hours)}
            connection.executemany(
                "DELETE FROM rule_firings WHERE rule = ? AND hour = ?", [(rule, hour) for hour in hours.keys() - kept]
            )
            self._hours[rule] = kept

    def mark_all_changed(self) -> None:
        """Write all counts with the next transaction, for a recreated state file."""
        self._changed = {(rule, hour) for rule, hours in self._hours.items() for hour in hours}

    def mark_written(self) -> None:
        """Record that the transaction of `write` was committed."""
        self._changed = set()
