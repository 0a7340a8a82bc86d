"""Copy the readable rows of a damaged state file into a new one.

Row by row: from both ends of each table as far as SQLite gets, and in between by asking for each row. A row is copied
only if its text matches its checksum. Rows of an older schema version are converted on the way. History is not copied:
it stays in the damaged file, for people.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.errors import StoreError
from watchdog.storage.checksum import is_intact
from watchdog.storage.damage import PRIMARY_CODE_MASK
from watchdog.storage.opening import open_read_only, open_state_file
from watchdog.storage.version_5 import OLD_COLUMNS, OLD_TABLES, TableRow, convert_row

_TABLES = (
    *(
        "clocks",
        "alerts",
        "groups",
        "silences",
        "receiver_state",
        "notified",
        "losses",
        "rule_memories",
        "baseline_secret",
        "baselines",
    ),
    "notifications",
)
_MAX_ROWS_BY_NUMBER = 20_000  # of one table
_CHECKED_COLUMNS = {
    **dict.fromkeys(("alerts", "groups", "silences"), "document"),
    "rule_memories": "content",
    "notifications": "body",
}

_CHECKED_SINCE = 3  # schema version from which on rows have checksums …
_NO_CHECKSUM = -1  # … a row without that column gets this one, which matches no text

_READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # the latter when an error message of SQLite quotes damaged text


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
    """Number of copied rows; `unreadable`: pending notifications that were found and do not match their checksum."""

    alerts: int = 0
    notifications: int = 0
    unreadable: int = 0


def salvage(damaged: Path, fresh: Path, checks: SalvageChecks = NO_CHECKS) -> SalvageResult:
    """Create the state file `fresh` from the readable rows of `damaged`, which is not changed.

    Raises:
        DamagedFileError, StoreError: `fresh` cannot be written.
    """
    salvaged = SalvageResult()
    target = open_state_file(fresh)
    try:
        target.execute("BEGIN IMMEDIATE")
        with contextlib.suppress(*_READ_ERRORS), _reading(damaged) as source:
            unchecked = source.execute("PRAGMA user_version").fetchone()[0] < _CHECKED_SINCE
            is_old = bool(_columns(source, OLD_TABLES["notifications"])) or "state" in _columns(source, "alerts")
            for table in _TABLES:
                for row in _old_rows(source, table) if is_old else _new_rows(source, target, table):
                    checked = row if unchecked or table not in _CHECKED_COLUMNS else {"checksum": _NO_CHECKSUM, **row}
                    _copy(target, table, convert_row(table, checked) if is_old else checked, salvaged, checks)
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


def _new_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> Iterator[TableRow]:
    columns = _columns(source, table)
    return _rows(source, table, tuple(name for name in _columns(target, table) if name in columns))


def _old_rows(source: sqlite3.Connection, table: str) -> Iterator[TableRow]:
    old_table = OLD_TABLES.get(table, table)
    columns = _columns(source, old_table)
    return _rows(source, old_table, tuple(name for name in OLD_COLUMNS.get(table, ()) if name in columns))


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    except _READ_ERRORS:
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
        except _READ_ERRORS:
            continue
        return
    first = max((number for number in seen if lowest is None or number < lowest), default=0) + 1
    last = first + _MAX_ROWS_BY_NUMBER if lowest is None else min(lowest, first + _MAX_ROWS_BY_NUMBER)
    for number in range(first, last):
        with contextlib.suppress(*_READ_ERRORS):
            for _, *values in source.execute(f"{select} WHERE rowid = ?", (number,)):
                yield dict(zip(columns, values, strict=True))


def _copy(
    target: sqlite3.Connection, table: str, row: TableRow, salvaged: SalvageResult, checks: SalvageChecks
) -> None:
    if table == "notifications" and row.get("state") != "pending":
        return
    readable = _is_intact(table, row) and checks.is_readable(table, row)
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
    elif table == "notifications":
        salvaged.notifications += readable
        salvaged.unreadable += not readable
        if not readable:
            checks.count_loss(target, row)


def _is_intact(table: str, row: TableRow) -> bool:
    if table not in _CHECKED_COLUMNS:
        return True
    content = row.get(_CHECKED_COLUMNS[table])
    return isinstance(content, (str, bytes)) and is_intact(content, row.get("checksum"))
