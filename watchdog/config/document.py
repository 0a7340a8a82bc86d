"""A TOML document that is read strictly: every key is asked for, every problem is told with its line.

The readers of `Table` never raise: what is wrong is noted and a harmless placeholder returned, so that all problems of
a file come out in one go. `Document.raise_problems` ends the reading.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from functools import cached_property
from typing import Final

from watchdog.config import suggestions
from watchdog.config.durations import format_duration, parse_duration
from watchdog.config.line_numbers import KeyPath, find_line_numbers
from watchdog.config.permissions import restrict_command
from watchdog.config.secrets import (
    Secret,
    SecretError,
    secret_from_credential,
    secret_from_environment,
    secret_from_file,
)
from watchdog.errors import ConfigError, Problem

# Of URLs: one that leads to a host and says no more, and one that begins with a login.
_BARE_URL: Final = re.compile(r"https?://[^/?#@]*/?", re.IGNORECASE)
_LOGIN: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_READERS: Final = (secret_from_file, secret_from_environment, secret_from_credential)
_BEYOND: Final = 2**63  # TOML 1.0, "Integer"; no limit or threshold of ours is near it


class Required(Enum):
    """The default of a key that has none."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED


def secret_forms(key: str) -> tuple[str, str, str, str]:
    """Return the keys under which the secret `key` can be given."""
    return key, f"{key}_file", f"{key}_env", f"{key}_credential"


class Document:
    """One parsed file, and what was found wrong in it.

    `data` is what a TOML parser made of `text`. With `require_secrets` off (checking a file as another user, or on
    another machine), secrets that are not there are notes instead of problems, and so are those that stand in a file
    which is open to others. `others`: to whom it is, for people.
    """

    def __init__(
        self,
        text: str,
        data: Mapping[str, object],
        file: str,
        *,
        require_secrets: bool = True,
        other_readers: str | None = None,
    ) -> None:
        """Keep the file's text for its lines, and `file` as it is to be told."""
        self.file = file
        self.require_secrets = require_secrets
        self.others = other_readers
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._text = text
        self.root = Table(self, (), data)

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return find_line_numbers(self._text)

    def line(self, path: KeyPath) -> int:
        """Return the line of the key at `path`, or of the nearest table around it that is written down."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def raise_problems(self) -> None:
        """Raise if anything is wrong.

        Raises:
            ConfigError: with every problem noted so far, in line order.
        """
        if self.problems:
            raise ConfigError(sorted(self.problems))


class Table:
    """One table of a document: asks for keys by type, and knows afterwards which ones nobody asked for."""

    def __init__(self, document: Document, path: KeyPath, data: Mapping[str, object]) -> None:
        """Read `data`, which stands at `path` of `document`."""
        self.document = document
        self._path = path
        self._data = data
        self._asked: set[str] = set()
        self._failed: set[tuple[str, int | None]] = set()

    def __contains__(self, key: str) -> bool:
        """Tell whether the table has `key`; that alone is not asking for it."""
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        """Return the keys of the table, in the file's order."""
        return iter(self._data)

    @property
    def line(self) -> int:
        """Return the line that the table begins on."""
        return self.document.line(self._path)

    def has_problem(self, key: str) -> bool:
        """Tell whether a problem has been noted for `key`, so that what was read of it is a placeholder."""
        return any(name == key for name, _ in self._failed)

    def add_problem(self, key: str, message: str, *, index: int | None = None) -> None:
        """Note that `key` (or its element `index`) is wrong, unless it is known to be: one problem each is enough."""
        if (key, None) not in self._failed and (key, index) not in self._failed:
            self._failed.add((key, index))
            self.document.problems.append(self._told(key, message, index))

    def add_note(self, key: str, message: str, *, index: int | None = None) -> None:
        """Note something about `key` that people should know and that is no reason to refuse the file."""
        self.document.notes.append(self._told(key, message, index))

    def _told(self, key: str, message: str, index: int | None) -> Problem:
        path = (*self._path, key) if index is None else (*self._path, key, index)
        name = ".".join(_bare(part) for part in (*self._path, key) if isinstance(part, str))
        return Problem(self.document.file, self.document.line(path), name, message)

    def value(self, key: str, default: object = REQUIRED) -> object:
        """Return whatever stands at `key`, for keys of several types; None where a required one is missing."""
        self._asked.add(key)
        if key in self._data:
            return self._data[key]
        if default is REQUIRED:
            self.add_problem(key, "missing")
            return None
        return default

    def text(self, key: str, default: str | Required = REQUIRED, *, choices: Collection[str] | None = None) -> str:
        """Return the text at `key`; one of `choices`, if given. An empty text is a problem."""
        value = self.value(key, default)
        if not isinstance(value, str):
            self._wrong_type(key, "a text", value)
        elif choices is not None and value not in choices:
            self.add_problem(key, suggestions.unknown_name("value", value, choices))
        elif not value and value != default:
            self.add_problem(key, "must not be empty")
        else:
            return value
        return "" if default is REQUIRED else default

    def texts(self, key: str, default: tuple[str, ...] | Required = REQUIRED) -> tuple[str, ...]:
        """Return the array of texts at `key`; elements that are no text are problems and left out."""
        value = self.value(key, default)
        if not isinstance(value, (list, tuple)):
            self._wrong_type(key, "an array of texts", value)
            return () if default is REQUIRED else default
        for index, element in enumerate(value):
            if not isinstance(element, str) or not element:
                self.add_problem(key, f"must be a text, not {_type_name(element)}", index=index)
        return tuple(element for element in value if isinstance(element, str) and element)

    def names(
        self,
        key: str,
        default: tuple[str, ...] | Required = REQUIRED,
        *,
        kind: str,
        known: Collection[str] | None,
    ) -> tuple[str, ...]:
        """Return the array of names at `key`. A duplicate, or a name that is not in `known`, is a problem.

        `kind`: the noun for such a name in messages, "receiver" for example. `known`: None accepts every name.
        """
        names = self.texts(key, default)
        for index, name in enumerate(names):
            if known is not None and name not in known:
                self.add_problem(key, suggestions.unknown_name(kind, name, known), index=index)
            elif name in names[:index]:
                self.add_problem(key, f"duplicate entry {suggestions.quote_value(name)}", index=index)
        return names

    def number(
        self,
        key: str,
        default: float | Required = REQUIRED,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> float:
        """Return the number at `key`, finite and within the limits."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._wrong_type(key, "a number", value)
        elif self._within(key, value, minimum, maximum):
            return float(value)
        return 0.0 if default is REQUIRED else default

    def integer(
        self,
        key: str,
        default: int | Required = REQUIRED,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
    ) -> int:
        """Return the whole number at `key`, within the limits."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(key, "a whole number", value)
        elif self._within(key, value, minimum, maximum):
            return value
        return 0 if default is REQUIRED else default

    def boolean(self, key: str, default: bool | Required = REQUIRED) -> bool:  # noqa: FBT001 - as the other readers
        """Return the true or false at `key`."""
        value = self.value(key, default)
        if isinstance(value, bool):
            return value
        self._wrong_type(key, "true or false", value)
        return False if default is REQUIRED else default

    def duration(
        self,
        key: str,
        default: str | Required = REQUIRED,
        *,
        minimum: str = "0s",
        maximum: str = "366d",
    ) -> int:
        """Return the duration at `key` in ns, within the limits; for its form see `watchdog.config.durations`."""
        value = self.value(key, default)
        placeholder = parse_duration(minimum if default is REQUIRED else default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.add_problem(key, f'needs a unit: "{value}s"?')
            return placeholder
        if not isinstance(value, str):
            self._wrong_type(key, 'a duration like "10s"', value)
            return placeholder
        try:
            duration_ns = parse_duration(value)
        except ValueError:
            self.add_problem(
                key, f'not a duration: {suggestions.quote_value(value)}; write it like "10s", "1m30s", "500ms", "4h"'
            )
            return placeholder
        least, most = parse_duration(minimum), parse_duration(maximum)
        if least <= duration_ns <= most:
            return duration_ns
        limit = f"at least {minimum}" if duration_ns < least else f"at most {maximum}"
        self.add_problem(key, f"must be {limit}, not {format_duration(duration_ns)}")
        return placeholder

    def table(self, key: str) -> Table:
        """Return the table at `key`; an empty one if there is none."""
        value = self.value(key, {})
        if isinstance(value, dict):
            return Table(self.document, (*self._path, key), value)
        self._wrong_type(key, "a table", value)
        return Table(self.document, (*self._path, key), {})

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return the tables of the array at `key`, `[[key]]` in the file; none if there are none."""
        value = self.value(key, [])
        if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
            self.add_problem(key, f"must be tables: write [[{_bare(key)}]]")
            return ()
        return tuple(Table(self.document, (*self._path, key, index), element) for index, element in enumerate(value))

    def secret(self, key: str, *, required: bool = True, is_url: bool = False) -> Secret | None:
        """Return the secret given by exactly one of the keys that `secret_forms` names.

        A file is read now. None if no secret is given, or if it can't be had, which then has been told. `is_url`: it is
        a URL that may hold no secret, so that in a file which others can read it is told, not refused.
        """
        forms = secret_forms(key)
        self._asked.update(forms)
        given = [form for form in forms if form in self._data]
        if len(given) > 1:
            self.add_problem(given[1], f"give only one of {', '.join(given)}")
        elif not given and required:
            self.add_problem(key, f"missing: give one of {', '.join(forms)}")
        elif given:
            return self._secret(given[0], key, is_url=is_url)
        return None

    def given_form(self, key: str) -> str | None:
        """Return the key under which the secret `key` is given, None if it is not given."""
        return next((form for form in secret_forms(key) if form in self._data), None)

    def _secret(self, form: str, key: str, *, is_url: bool) -> Secret | None:
        text = self._data[form]
        if not isinstance(text, str) or not text:
            self.add_problem(form, f"must be a text, not {_type_name(text)}")
            return None
        if form == key:
            return self._inline(key, text, is_url=is_url)
        read = dict(zip(secret_forms(key)[1:], _READERS, strict=True))[form]
        try:
            return read(text)
        except SecretError as error:
            if error.is_unavailable and not self.document.require_secrets:
                self.add_note(form, f"not checked: {error}")
            else:
                self.add_problem(form, str(error))
            return None

    def _inline(self, key: str, text: str, *, is_url: bool) -> Secret | None:
        document = self.document
        if document.others is None or (is_url and _BARE_URL.fullmatch(text)):
            return Secret(text)
        exposed = f"stands in a file that is open to {document.others}"
        advice = f"give {key}_file instead, or {restrict_command(document.file)}"
        if is_url and not _LOGIN.match(text):
            self.add_note(key, f"{exposed}: if it holds a secret, {advice}")
        elif document.require_secrets:
            self.add_problem(key, f"{exposed}: {advice}")
            return None
        else:
            self.add_note(key, f"{exposed}: {advice}")
        return Secret(text)

    def reject_unknown_keys(self) -> None:
        """Note every key of this table (not of those inside it) that no reader asked for as unknown."""
        for key in self._data:
            if key not in self._asked:
                self.add_problem(key, suggestions.unknown_name("key", key, self._asked))

    def _within(self, key: str, value: float, minimum: float, maximum: float) -> bool:
        if not -_BEYOND < value < _BEYOND:  # NaN too
            self.add_problem(key, "is not a number of use")
            return False
        if value < minimum:
            self.add_problem(key, f"must be at least {_plain(minimum)}, not {suggestions.quote_value(value)}")
        elif value > maximum:
            self.add_problem(key, f"must be at most {_plain(maximum)}, not {suggestions.quote_value(value)}")
        return minimum <= value <= maximum

    def _wrong_type(self, key: str, wanted: str, value: object) -> None:
        if key in self._data:  # a missing key has been told
            self.add_problem(key, f"must be {wanted}, not {_type_name(value)}")


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _bare(key: str) -> str:
    """Return `key` as TOML writes it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _type_name(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case str():
            return "a text" if value else "an empty text"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"
