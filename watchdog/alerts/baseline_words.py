"""The words about a baseline: the sentence that explains an alert, and the fields of its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping

from watchdog.rules.engine.learnt_facts import BaselineFacts
from watchdog.rules.language import formats
from watchdog.rules.language.rule import Severity

_LIMIT_DIGITS = 4
_HOURS_A_DAY = 24
_DAYS_A_YEAR = 365
_MIN_DAYS, _MIN_YEARS = 2, 3  # a span is shown in days, and in years, from here on


def baseline_reason(form: str, value: float, facts: BaselineFacts, *, above: bool) -> str:
    """Return the sentence that explains why `value` fired; `form`: the format of the values.

    "900/s; in this hour it has lately reached 79/s, at any hour 333/s; expected less than once in 20 days (limit
    146/s, critical 204/s; learnt 20 days)".
    """
    limits = ", ".join(
        f"{'limit' if place == 0 else severity.label} {learnt_text(form, limit, above=above)}"
        for place, (severity, limit) in enumerate(sorted(facts.limits.items()))
        if math.isfinite(limit)
    )
    number = formats.format_number(form, value, _least_severe(facts.limits))
    learnt = f"learnt {span_text(facts.learnt_hours)}"
    if facts.is_new:
        highest = formats.format_number(form, facts.highest or 0.0)
        return f"{number}; new here, and above the limits of all others, the highest is {highest} ({limits}; {learnt})"
    verb, before = ("reached", "") if above else ("fallen to", "to ")
    parts = [number]
    known = [(f"in this hour it has lately {verb} ", facts.usual), ("at any hour ", facts.highest)]
    if facts.usual is None:
        known = [(f"at any hour it has lately {verb} ", facts.highest)]
    elif before:
        known[1] = (f"at any hour {before}", facts.highest)
    reached = ", ".join(f"{text}{formats.format_number(form, amount)}" for text, amount in known if amount is not None)
    parts += [reached] if reached else []
    parts.append(f"expected less than once in {span_text(facts.rarity_hours)} ({limits}; {learnt})")
    return "; ".join(parts)


def summary_values(facts: BaselineFacts | None) -> dict[str, object]:
    """Return the values of the fields that rules with a baseline have; `facts` None: nothing is known yet."""
    if facts is None:
        return {"usual": math.nan, "highest": math.nan, "rarity": "unknown", "learnt": "unknown"}
    usual, highest = (math.nan if one is None else one for one in (facts.usual, facts.highest))
    rarity, learnt = span_text(facts.rarity_hours), span_text(facts.learnt_hours)
    return {"usual": usual, "highest": highest, "rarity": rarity, "learnt": learnt}


def learnt_text(form: str, limit: float, *, above: bool) -> str:
    """Return a learnt limit in few digits, rounded so that a value beyond the limit reads beyond it too."""
    if not math.isfinite(limit) or limit == 0:
        return formats.format_number(form, limit)
    step = 10.0 ** (math.floor(math.log10(abs(limit))) - _LIMIT_DIGITS + 1)
    rounded = math.floor(limit / step) if above else math.ceil(limit / step)
    # A division by a power of ten gives the nearest decimal number; a product with one does not.
    exact = rounded / round(1 / step) if step < 1 else rounded * step
    return formats.format_exact(form, exact)


def span_text(hours: float) -> str:
    """Return a span of time in words, rounded down: "7 hours", "200 days", "3 years"."""
    days = int(hours // _HOURS_A_DAY)
    if days < _MIN_DAYS:
        number, unit = int(hours), "hour"
    elif days < _MIN_YEARS * _DAYS_A_YEAR:
        number, unit = days, "day"
    else:
        number, unit = days // _DAYS_A_YEAR, "year"
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _least_severe(limits: Mapping[Severity, float]) -> float:
    return limits[min(limits)]
