"""One line of the log as values: an event, and facts by name, taken from "event: key=%s key=%s" of the call.

The names are those of the format string, never of its arguments: a text from the host cannot make a fact.
"""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeGuard

from watchdog import sanitize
from watchdog.systemd import journal_entry

Facts = tuple[tuple[str, str | float], ...]

_FIRST_KEY = re.compile(r"(?:^|(?<=[: ]))(?=[a-z_]+=)")
_NEXT_KEY = re.compile(r" (?=[a-z_]+=)")
_CONVERSION = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?[a-zA-Z])")
_WHOLE_CONVERSION = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]")
_OWN_KEYS: Final = frozenset(("time", "level", "event", "detail"))
_LEVELS: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.NOTSET, 6))  # priorities of syslog(3)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event. `facts`: of its text; `more`: of its structured forms only. `detail`: further lines, not escaped.

    `at`: wall-clock seconds. `level`: as in `logging`.
    """

    at: float
    level: int
    event: str
    facts: Facts = ()
    more: Facts = ()
    detail: tuple[str, ...] = ()

    @property
    def priority(self) -> int:
        """Return the priority as in syslog(3)."""
        return next(priority for level, priority in _LEVELS if self.level >= level)

    def message(self) -> str:
        """Return the text without time and level; further lines are indented."""
        facts = " ".join(f"{name}={sanitize.for_log_value(str(value))}" for name, value in self.facts)
        event = sanitize.for_log(self.event)
        first = f"{event}: {facts}" if event and facts else event or facts
        return "\n".join([first, *(f"  {sanitize.for_log(line)}" for line in self.detail)])

    def line(self) -> str:
        """Return the text with the UTC time (RFC 3339) and the level: "2025-06-15T15:06:40.000Z INFO …"."""
        return f"{self._time()} {logging.getLevelName(self.level)} {self.message()}"

    def json_line(self) -> str:
        """Return one JSON object on one line."""
        own = {"time": self._time(), "level": logging.getLevelName(self.level).lower()}
        facts = {
            f"field_{name}" if name in _OWN_KEYS else name: value if _is_number(value) else sanitize.for_log(str(value))
            for name, value in (*self.facts, *self.more)
        }
        detail = {"detail": "\n".join(map(sanitize.for_log, self.detail))} if self.detail else {}
        return json.dumps({**own, "event": sanitize.for_log(self.event), **facts, **detail}, ensure_ascii=False)

    def journal_entry(self, message: str) -> bytes:
        """Return the entry of the journal's own protocol, with each fact in a field."""
        facts = {f"WATCHDOG_{name.upper()}": sanitize.for_log(str(value)) for name, value in (*self.facts, *self.more)}
        own = {"MESSAGE": message, "PRIORITY": str(self.priority), "SYSLOG_IDENTIFIER": "bpf-watchdog"}
        return journal_entry(({**facts, "WATCHDOG_EVENT": sanitize.for_log(self.event)} | own).items())

    def _time(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def read_record(record: logging.LogRecord) -> LogEvent:
    """Return the event of a record; `facts` of `extra` are further facts, beside those of its text.

    Raises:
        TypeError, ValueError: the arguments do not fit the format.
    """
    event, facts = _parse(record)
    first, *rest = event.split("\n")
    if record.exc_info and record.exc_info[0] is not None:
        rest += "".join(traceback.format_exception(*record.exc_info)).splitlines()
    more: Mapping[str, str] = getattr(record, "facts", {})
    return LogEvent(record.created, record.levelno, first, facts, tuple(more.items()), tuple(rest))


def _parse(record: logging.LogRecord) -> tuple[str, Facts]:
    """Return the event and the facts of a record's message."""
    template = str(record.msg)
    found = _FIRST_KEY.search(template)
    if found is None or not isinstance(record.args, tuple):
        return record.getMessage(), ()
    arguments = iter(record.args)
    head, tail = template[: found.start()], template[found.start() :]
    event = _insert(head, arguments).rstrip(": ")
    facts = tuple(_facts(_NEXT_KEY.split(tail), arguments))
    if next(arguments, None) is not None:
        raise TypeError(f"more arguments than the format has: {template}")
    return event, facts


def _facts(parts: list[str], arguments: Iterator[object]) -> Iterator[tuple[str, str | float]]:
    for part in parts:
        name, _, value = part.partition("=")
        if _WHOLE_CONVERSION.fullmatch(value):
            argument = next(arguments)
            text = value % (argument,)
            # As many digits as the format gives it.
            yield name, _number(text) if _is_number(argument) else text
        else:
            yield name, _insert(value, arguments)


def _insert(template: str, arguments: Iterator[object]) -> str:
    """Return `template` with its conversions replaced by the next arguments."""
    wanted = sum(found != "%%" for found in _CONVERSION.findall(template))
    return template % tuple(next(arguments) for _ in range(wanted))


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
