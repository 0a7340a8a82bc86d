"""Where each value of a rule comes from: file and line, for `rules --effective`."""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.config.line_numbers import KeyPath

_OVERRIDE_KEYS = frozenset(("id", "enabled"))  # of an override: they are no values of the rule
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_DELETE = "\x7f"  # TOML 1.0 allows it in no string, JSON does


class RuleOrigin(enum.StrEnum):
    """Origin of a rule; the values are shown."""

    SHIPPED = "shipped"
    OVERRIDDEN = "overridden"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """One value of a rule. `key`: dotted, for entries of tables: "fire_above.critical". `file`: with line or note."""

    key: str
    value: object
    file: str


@dataclass(frozen=True, slots=True)
class RuleSource:
    """Origin of a rule and its values in the order of its files."""

    origin: RuleOrigin
    values: tuple[SourcedValue, ...]

    def with_value(self, key: str, value: object, note: str) -> RuleSource:
        """Return the source with another value at `key`; `note`: its reason, in place of a file."""
        kept = tuple(one for one in self.values if one.key != key)
        return RuleSource(self.origin, (*kept, SourcedValue(key, value, note)))


def count_shipped(ids: Iterable[str], sources: Mapping[str, RuleSource]) -> int:
    """Return the number of rules in `ids` that are shipped, with or without an override; `sources`: by id."""
    found = (sources.get(rule_id) for rule_id in ids)
    return sum(source is not None and source.origin is not RuleOrigin.OWN for source in found)


def origin_text(place: str, rules: int, shipped: int) -> str:
    """Return the place of `rules` rules for people: "/etc/bpf-watchdog/rules.d (50 of them shipped)"."""
    if not shipped:
        return place
    return f"{place} (shipped)" if shipped == rules else f"{place} ({shipped} of them shipped)"


def table_source(table: Table, origin: RuleOrigin) -> RuleSource:
    """Return the source of the rule in `table`."""
    return RuleSource(origin, tuple(_values(table)))


def overridden_source(shipped: Table, override: Table) -> RuleSource:
    """Return the source of a shipped rule with the values of an `[[override]]`, which replace those of its keys."""
    values = {one.key: one for one in _values(shipped)}
    changes = {key: value for key, value in override.data.items() if key not in _OVERRIDE_KEYS}
    for key, value in changes.items():
        if not isinstance(value, dict) or not isinstance(shipped.data.get(key), dict):
            values = {name: one for name, one in values.items() if name != key and not name.startswith(f"{key}.")}
    values |= {one.key: one for one in _values(override) if one.key not in _OVERRIDE_KEYS}
    return RuleSource(RuleOrigin.OVERRIDDEN, tuple(values.values()))


def _values(table: Table) -> Iterator[SourcedValue]:
    yield from _entries(table, (), table.data)


def _entries(table: Table, path: KeyPath, data: Mapping[str, object]) -> Iterator[SourcedValue]:
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _entries(table, (*path, key), value)
        else:
            name = ".".join(toml_key(str(part)) for part in (*path, key))
            yield SourcedValue(name, value, f"{table.document.file}:{table.line_of((*path, key))}")


def format_toml(value: object) -> str:
    """Return a value of a TOML document as TOML, on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace(_DELETE, "\\u007f")
        case list() | tuple():
            return "[" + ", ".join(map(format_toml, value)) + "]"
        case dict():
            entries = (f"{toml_key(key)} = {format_toml(entry)}" for key, entry in value.items())
            return "{ " + ", ".join(entries) + " }" if value else "{}"
        case dt.date() | dt.time():
            return value.isoformat()
    return repr(value)


def toml_key(key: str) -> str:
    """Return a key of a TOML document, quoted where it has to be."""
    return key if _BARE_KEY.fullmatch(key) else format_toml(key)
