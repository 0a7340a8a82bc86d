"""Conditions as texts: the patterns of a file, and the matchers of a command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from watchdog.rules.language.rule import Condition


def patterns_of(conditions: Iterable[Condition]) -> dict[str, list[str]]:
    """Return the patterns of each dimension as in a file: "!" precedes those that exclude."""
    return {one.dimension: [*one.any_of, *(f"!{pattern}" for pattern in one.none_of)] for one in conditions}


def matchers_text(patterns: Mapping[str, Sequence[str]]) -> str:
    """Return the answer of `patterns_of` in one line, as `silence add` takes it: "process=a process=b unit!=c".

    An empty value is "-".
    """
    matchers = (
        f"{name}!={pattern[1:] or '-'}" if pattern.startswith("!") else f"{name}={pattern or '-'}"
        for name, alternatives in patterns.items()
        for pattern in alternatives
    )
    return " ".join(matchers)
