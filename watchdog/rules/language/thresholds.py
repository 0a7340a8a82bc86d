"""`fire_above`, `fire_below` and `clear_*` of a rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from watchdog.config.document import Table
from watchdog.measure.catalogue import Unit
from watchdog.rules.language.quantity import parse_quantity, quantity_text
from watchdog.rules.language.rule import BaselineSpec, Severity, Thresholds

Levels = Mapping[Severity, float]  # NaN, which compares with nothing, where a level has a problem

_LONG_LATENCY = 10  # seconds
_FEW_BYTES = 1_000  # a limit of 0 or 1 asks for any traffic
_KEYS = ("fire_above", "fire_below", "clear_below", "clear_above")


@dataclass(frozen=True, slots=True)
class ValueDomain:
    """Domain of the values that thresholds are compared with.

    `unit`: None where it has no name. `per_second`: values are rates. `minimum`, `maximum`: no value is below or above.
    `is_latency`: values are waits, most of them below a second.
    """

    unit: Unit | None
    per_second: bool
    minimum: float
    maximum: float = math.inf
    is_latency: bool = False


def read_thresholds(rule: Table, domain: ValueDomain | None, baseline: BaselineSpec | None = None) -> Thresholds:
    """Return the thresholds of `rule`; problems are noted in it. `domain`: None where the metric has a problem.

    With a `baseline` they are a ceiling, infinite without the keys.
    """
    levels = {key: _read_levels(rule, key, domain) for key in _KEYS}
    if baseline is not None and not any(key in rule for key in _KEYS):
        never = math.inf if baseline.above else -math.inf
        limits = dict.fromkeys(baseline.rarity_hours, never)
        return Thresholds(baseline.above, limits, limits)
    above = "fire_above" in rule or "fire_below" not in rule
    fire_key, clear_key = ("fire_above", "clear_below") if above else ("fire_below", "clear_above")
    other_fire, other_clear = ("fire_below", "clear_above") if above else ("fire_above", "clear_below")
    clear_alone = next((key for key in ("clear_below", "clear_above") if key in rule), None)
    if baseline is not None and fire_key not in rule and clear_alone is not None:
        rule.add_problem(clear_alone, "has no use here: a learnt limit is its own level to clear; remove it")
    elif fire_key not in rule and not rule.has_problem("baseline"):
        rule.add_problem(fire_key, "missing: give fire_above, fire_below, [rule.baseline] or [rule.novelty]")
    if other_fire in rule:
        rule.add_problem(other_fire, f"cannot be combined with {fire_key}: a rule fires either above or below")
    elif other_clear in rule:
        rule.add_problem(other_clear, f"belongs to {other_fire}; with {fire_key} use {clear_key}")
    fire, clear = levels[fire_key], levels[clear_key]
    if not rule.has_problem(fire_key):
        _check_severities(rule, fire_key, fire, above=above)
        _check_reach(rule, clear_key if above else fire_key, clear if above else fire, domain)
        _check_maximum(rule, fire_key, fire, domain, above=above)
        _check_clear(rule, clear_key, clear, fire, above=above)
    clears = {severity: clear.get(severity, _next(level, above=above)) for severity, level in fire.items()}
    if baseline is not None:
        fire, clears = _with_learnt_severities(rule, fire_key, fire, clears, baseline, above=above)
    fire_texts, clear_texts = (_texts(rule, key, domain) for key in (fire_key, clear_key))
    return Thresholds(above, fire, clears, fire_texts, clear_texts)


def _with_learnt_severities(
    rule: Table, key: str, fire: Levels, clear: Levels, baseline: BaselineSpec, *, above: bool
) -> tuple[Levels, dict[Severity, float]]:
    """Return the levels of a ceiling beside `baseline`, infinite for severities that only the baseline has."""
    if above is not baseline.above:
        direction = "above" if baseline.above else "below"
        rule.add_problem(key, f"contradicts baseline, which fires {direction} the usual: give fire_{direction}")
    elif above and fire and max(fire.values()) <= baseline.floor:
        rule.add_note(key, f"the baseline has no effect: its limits are never below its floor, {baseline.floor:g}")
    never = dict.fromkeys(baseline.rarity_hours, math.inf if above else -math.inf)
    return {**never, **fire}, {**never, **clear}


def _texts(rule: Table, key: str, domain: ValueDomain | None) -> Mapping[Severity, str]:
    """Return the levels at `key` that have a unit, as the file has them."""
    value = rule.value(key, None)
    by_label = value if isinstance(value, dict) else {Severity.WARNING.label: value}
    per_second = domain is not None and domain.per_second
    texts = {}
    for severity in Severity:
        level = by_label.get(severity.label)
        if isinstance(level, str) and (text := quantity_text(level, per_second=per_second)):
            texts[severity] = text
    return texts


def _next(level: float, *, above: bool) -> float:
    """Return the nearest level that does not fire: `fire_above = 0` clears at 0, and no value is below 0."""
    return math.nextafter(level, math.inf if above else -math.inf)


def _read_levels(rule: Table, key: str, domain: ValueDomain | None) -> Levels:
    """Return the levels at `key`, none without the key; a plain number is the level of warning."""
    value = rule.value(key, None)
    if value is None:
        return {}
    if not isinstance(value, dict):
        return {Severity.WARNING: read_level(rule, key, value, domain)}
    table = rule.table(key)
    read = {
        severity: read_level(table, severity.label, level, domain)
        for severity in Severity
        if (level := table.value(severity.label, None)) is not None
    }
    table.reject_unknown_keys()
    if not value:
        rule.add_problem(key, "names no severity: give warning, critical or both")
    return read


def read_level(table: Table, key: str, value: object, domain: ValueDomain | None) -> float:
    """Return the level `value` of `key`, a number or a quantity; NaN if it has a problem."""
    if isinstance(value, str):
        return _read_quantity(table, key, value, domain)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        table.add_problem(key, 'must be a number, or a string with a unit like "100MB"')
    else:
        number = table.number(key)
        if table.has_problem(key):
            return math.nan
        if domain is not None and (doubt := _unit_doubt(number, domain)):
            table.add_note(key, doubt)
        return number
    return math.nan


def _read_quantity(table: Table, key: str, text: str, domain: ValueDomain | None) -> float:
    if domain is None:
        return math.nan
    try:
        number = parse_quantity(text, domain.unit, per_second=domain.per_second)
    except ValueError as error:
        table.add_problem(key, str(error))
        return math.nan
    if domain.is_latency and number >= _LONG_LATENCY and text.endswith("m"):
        table.add_note(key, f'is {number / 60:g} minutes: write "{text}s" for milliseconds')
    return number


def _unit_doubt(number: float, domain: ValueDomain) -> str:
    """Return a note for a plain number that is likely to be in another unit, "" without a doubt."""
    match domain.unit:
        case Unit.RATIO if 1 < number < domain.maximum:
            return f'is {number * 100:,.6g} %: write "{number:g}%" for a share, or "{number * 100:.6g}%" if it is meant'
        case Unit.SECONDS if domain.is_latency and number >= _LONG_LATENCY:
            return f'is {number:g} s: write "{number:g}ms" for milliseconds, or "{number:g}s" if it is meant'
        case Unit.BYTES if 1 < number < _FEW_BYTES:
            return f'is {number:g} bytes: write "{number:g}MB" for megabytes, or "{number:g}B" if it is meant'
        case _:
            return ""


def _check_severities(rule: Table, key: str, fire: Levels, *, above: bool) -> None:
    warning, critical = (fire.get(severity, math.nan) for severity in Severity)
    if (critical <= warning) if above else (critical >= warning):
        better = "above" if above else "below"
        _problem(rule, key, Severity.CRITICAL, f"must be {better} the warning's {warning:g}, not {critical:g}")


def _check_reach(rule: Table, key: str, levels: Levels, domain: ValueDomain | None) -> None:
    for severity, level in levels.items():
        if domain is not None and level <= domain.minimum:
            _problem(rule, key, severity, f"is never reached: no value is below {domain.minimum:g}")


def _check_maximum(rule: Table, key: str, levels: Levels, domain: ValueDomain | None, *, above: bool) -> None:
    if domain is None:
        return
    maximum = f"{domain.maximum:g}" + (" (100 %)" if domain.unit is Unit.RATIO and domain.maximum == 1 else "")
    for severity, level in levels.items():
        if above and level >= domain.maximum:
            _problem(rule, key, severity, f"is never reached: no value is above {maximum}")
        elif not above and level > domain.maximum:
            _problem(rule, key, severity, f"holds always: no value is above {maximum}")


def _check_clear(rule: Table, key: str, clear: Levels, fire: Levels, *, above: bool) -> None:
    for severity, level in clear.items():
        if severity not in fire:
            _problem(rule, key, severity, f"has no effect: the rule never fires as {severity.label}")
        elif (level > fire[severity]) if above else (level < fire[severity]):
            limit = "at most" if above else "at least"
            remedy = f"{'lower' if above else 'raise'} {key} too"
            message = f"must be {limit} the firing threshold {fire[severity]:g}, not {level:g}: {remedy}"
            _problem(rule, key, severity, message)


def _problem(rule: Table, key: str, severity: Severity, message: str) -> None:
    """Note a problem at the line of the level of `severity`."""
    if isinstance(rule.value(key), dict):
        rule.table(key).add_problem(severity.label, message)
    else:
        rule.add_problem(key, message)
