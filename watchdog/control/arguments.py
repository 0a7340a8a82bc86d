"""Strict reader of the arguments of a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from watchdog.config.suggestions import unknown_name
from watchdog.errors import UsageError


class RequestArguments:
    """Reads arguments by type. All methods raise UsageError for arguments that are wrong."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Read `given`; null counts as a missing argument."""
        self._given = {name: value for name, value in given.items() if value is not None}
        self._read_names: set[str] = set()

    def text(self, name: str, *, choices: Collection[str] | None = None) -> str | None:
        """Return the text `name`, one of `choices` if given; None if it is missing."""
        value = self._take(name, None)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} must be a text")
        if choices is not None and value is not None and value not in choices:
            raise UsageError(unknown_name(name, value, choices))
        return value

    def texts(self, name: str, *, max_count: int) -> tuple[str, ...]:
        """Return the texts in the array `name`: at least one, at most `max_count`."""
        value = self._take(name, None)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or not value:
            raise UsageError(f"{name} must be an array of texts")
        if len(value) > max_count:
            raise UsageError(f"{name} can have at most {max_count} texts")
        return tuple(value)

    def text_table(self, name: str) -> dict[str, str]:
        """Return the object `name`, with texts as values; an empty one if it is missing."""
        value = self._take(name, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise UsageError(f"{name} must be an object of texts")
        return dict(value)

    def integer(self, name: str, default: int, *, maximum: int) -> int:
        """Return the integer `name`, from 1 to `maximum`."""
        value = self._take(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
            raise UsageError(f"{name} must be a whole number from 1 to {maximum}")
        return value

    def reject_unknown_arguments(self) -> None:
        """Raise if an argument has not been read."""
        for name in self._given:
            if name not in self._read_names:
                raise UsageError(unknown_name("argument", name, self._read_names))

    def _take(self, name: str, default: object) -> Any:
        self._read_names.add(name)
        return self._given.get(name, default)
