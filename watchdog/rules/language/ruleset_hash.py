"""One hash of the meaning of a rule set, to check that all hosts of a fleet use the same rules."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from watchdog.rules.language.rule import Condition, Rule


def ruleset_hash(rules: Iterable[Rule]) -> str:
    """Return the SHA-256, in hex, of the rules in force.

    Layout, comments, file names, the order of rules, of keys and of the values of a condition, and a default that is
    written out do not change it.
    A change of the effect or the text of a rule does. It may differ between versions of bpf-watchdog.
    """
    plain = [_plain(rule) for rule in sorted(rules, key=lambda rule: rule.id)]
    text = json.dumps(plain, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def definition_digest(*parts: object) -> str:
    """Return the SHA-256, in hex, of parts of a rule: texts, numbers, tuples and dataclasses of the language."""
    plain = [_plain(part) for part in parts]
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def baseline_digest(rule: Rule) -> str:
    """Return the digest of the part of a rule with a baseline that decides on the values it learns.

    A change of `rarity`, `learn`, `for` and the like does not change it.
    """
    spec = rule.baseline
    learnt = None if spec is None else (spec.floor, spec.season, spec.above)
    parts = rule.metric, rule.stat, rule.window_ns, rule.by, rule.where, rule.only_if  # exceptions come and go
    return definition_digest(*parts, learnt)


def _dimension(condition: Condition) -> str:
    return condition.dimension


def _plain(value: Any) -> Any:
    match value:
        case enum.Enum():
            return value.name
        case None | str() | int() | float():
            return value
        case dt.date():
            return value.isoformat()
        case Mapping():
            return [[_plain(key), _plain(entry)] for key, entry in sorted(value.items())]
        case Condition():
            return [value.dimension, sorted(set(value.any_of)), sorted(set(value.none_of))]
        case tuple():
            is_where = all(isinstance(entry, Condition) for entry in value)
            return [_plain(entry) for entry in (sorted(value, key=_dimension) if is_where else value)]
    # File and line do not compare.
    fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare}
    return {type(value).__name__: fields}
