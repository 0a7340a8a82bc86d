"""What can still be read of a damaged state file, taken over into a new one.

Row by row: from both ends of each table as far as SQLite gets, and in between by asking for each row. A row goes over
only if its checksum says that it is what it was. History stays behind: it is in the damaged file, for people.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.errors import StoreError
from watchdog.storage.checksum import is_intact
from watchdog.storage.damage import PRIMARY_CODE_MASK
from watchdog.storage.opening import open_read_only, open_state_file

_TABLES = ("clocks", "alerts", "groups", "memories", "told", "losses", "notices")
_MOST_ASKED_FOR = 20_000  # rows of one table, each by its number
_TEXTS = {"alerts": "state", "groups": "state", "notices": "body"}

_CHECKED_SINCE = 3  # the version of the file from which on rows have checksums …
_NONE = -1  # … and one whose column is gone has this, which fits no text

_TROUBLE = (sqlite3.Error, UnicodeDecodeError)  # the latter when SQLite's words quote what is no text any more

TableRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SalvageChecks:
    """The knowledge of the content of rows, which belongs to `watchdog.state`.

    `is_readable`: takes a table and a row whose checksum is right. `count_loss`: takes the new file and a pending
    notification that cannot be read, and counts it there.
    """

    is_readable: Callable[[str, TableRow], bool]
    count_loss: Callable[[sqlite3.Connection, TableRow], None]


NO_CHECKS = SalvageChecks(lambda _table, _row: True, lambda _target, _row: None)
"""For a file whose content is unknown: the checksum alone decides."""


@dataclass(slots=True)
class SalvageResult:
    """What was taken over; `unreadable`: pending notices that were seen and are not what they were."""

    alerts: int = 0
    notifications: int = 0
    unreadable: int = 0


def salvage(damaged: Path, fresh: Path, checks: SalvageChecks = NO_CHECKS) -> SalvageResult:
    """Make the state file `fresh` from what can be read of `damaged`, which is left as it is.

    Raises:
        Damaged, StoreError: `fresh` can't be written.
    """
    salvaged = SalvageResult()
    target = open_state_file(fresh)
    try:
        target.execute("BEGIN IMMEDIATE")
        with contextlib.suppress(*_TROUBLE), _reading(damaged) as source:
            unchecked = source.execute("PRAGMA user_version").fetchone()[0] < _CHECKED_SINCE
            for table in _TABLES:
                for row in _rows(source, table, _common_columns(source, target, table)):
                    _take_over(target, table, row if unchecked else {"checksum": _NONE, **row}, salvaged, checks)
        target.execute("COMMIT")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {fresh}: {error}") from error
    finally:
        target.close()
    return salvaged


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_read_only(path)
    try:
        yield connection
    finally:
        connection.close()


def _common_columns(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> tuple[str, ...]:
    columns = _columns(source, table)
    return tuple(name for name in _columns(target, table) if name in columns)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    except _TROUBLE:
        return []


def _rows(source: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[TableRow]:
    if not columns:
        return
    select = f"SELECT rowid, {', '.join(columns)} FROM {table} NOT INDEXED"  # noqa: S608 - names of our own
    seen: set[int] = set()
    lowest: int | None = None
    for direction in ("ASC", "DESC"):
        try:
            for number, *values in source.execute(f"{select} ORDER BY rowid {direction}"):
                if number in seen:
                    return
                seen.add(number)
                lowest = number if direction == "DESC" else lowest
                yield dict(zip(columns, values, strict=True))
        except _TROUBLE:
            continue
        return
    first = max((number for number in seen if lowest is None or number < lowest), default=0) + 1
    last = first + _MOST_ASKED_FOR if lowest is None else min(lowest, first + _MOST_ASKED_FOR)
    for number in range(first, last):
        with contextlib.suppress(*_TROUBLE):
            for _, *values in source.execute(f"{select} WHERE rowid = ?", (number,)):
                yield dict(zip(columns, values, strict=True))


def _take_over(
    target: sqlite3.Connection, table: str, row: TableRow, salvaged: SalvageResult, checks: SalvageChecks
) -> None:
    if table == "notices" and row.get("state") != "pending":
        return
    readable = _is_intact(table, row) and checks.is_readable(table, row)
    if table not in _TEXTS:
        row = {name: value for name, value in row.items() if name != "checksum"}
    if readable:
        statement = (
            f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) "  # noqa: S608 - names of our own
            f"VALUES ({', '.join('?' * len(row))})"
        )
        try:
            readable = target.execute(statement, tuple(row.values())).rowcount > 0
        except sqlite3.Error as error:
            if error.sqlite_errorcode & PRIMARY_CODE_MASK not in {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT}:
                raise
            readable = False
    if table == "alerts":
        salvaged.alerts += readable
    elif table == "notices":
        salvaged.notifications += readable
        salvaged.unreadable += not readable
        if not readable:
            checks.count_loss(target, row)


def _is_intact(table: str, row: TableRow) -> bool:
    if table not in _TEXTS:
        return True
    text = row.get(_TEXTS[table])
    return isinstance(text, str) and is_intact(text, row.get("checksum"))
