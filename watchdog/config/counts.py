"""Numbers with their noun, for lines that people read."""

from __future__ import annotations


def format_count(number: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless the number is 1: "1 rule", "13 rules"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
