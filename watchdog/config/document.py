"""Strict reader of TOML documents: unknown keys are problems, and every problem has its line number.

The readers of `Table` never raise. They add a problem to the document and return a placeholder, so that all problems of
a file are reported at once. `Document.raise_problems` ends the reading.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from watchdog.config import suggestions
from watchdog.config.durations import format_duration, parse_duration
from watchdog.config.file_identity import FileIdentity, file_identity
from watchdog.config.line_numbers import KeyPath, find_line_numbers
from watchdog.config.permissions import restrict_command
from watchdog.config.secrets import (
    Secret,
    SecretError,
    checked_secret,
    credential_path,
    secret_from_credential,
    secret_from_environment,
    secret_from_file,
)
from watchdog.errors import ConfigError, Problem

# URLs: one with a host only, which contains no secret, and one with a login.
_BARE_URL: Final = re.compile(r"https?://[^/?#@]*/?", re.IGNORECASE)
_LOGIN: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_READERS: Final = (secret_from_file, secret_from_environment, secret_from_credential)
_NUMBER_LIMIT: Final = 2**63  # TOML 1.0, "Integer"; far above every limit and threshold


class Required(Enum):
    """Marker for a key without a default."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED


def secret_forms(key: str) -> tuple[str, str, str, str]:
    """Return the four keys of the secret `key`: its value, its file, its environment variable, its credential."""
    return key, f"{key}_file", f"{key}_env", f"{key}_credential"


class Document:
    """One parsed file with its problems and notes.

    `data` is the parser's result for `text`. Without `require_secrets` (`check` as another user or on another host),
    secrets that are unavailable, and secrets in a file that is open to others, are notes instead of problems.
    `is_in_service`: False where the service's environment and credentials are unknown: they are not required then.
    `other_readers`: other users with access to the file, as `permissions.other_readers` returns them. `untrusted`: a
    problem for the file and each folder on the way to it that others can change.
    """

    def __init__(
        self,
        text: str,
        data: Mapping[str, object],
        file: str,
        *,
        require_secrets: bool = True,
        is_in_service: bool = True,
        other_readers: str | None = None,
    ) -> None:
        """Keep the text for its line numbers, and `file` as the file's name in messages."""
        self.file = file
        self.require_secrets = require_secrets
        self.is_in_service = is_in_service
        self.other_readers = other_readers
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.untrusted: list[Problem] = []
        self.inline_secrets: list[KeyPath] = []
        """The keys of the secrets that stand in the file itself and were read."""
        self._text = text
        self.root = Table(self, (), data)

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return find_line_numbers(self._text)

    @property
    def text(self) -> str:
        """Return the text of the file."""
        return self._text

    def line(self, path: KeyPath) -> int:
        """Return the line of the key at `path`, or of the nearest enclosing table that has a line."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def raise_problems(self) -> None:
        """Raise if the document has problems.

        Raises:
            ConfigError: with every problem added so far, in line order.
        """
        if self.problems:
            raise ConfigError(sorted(self.problems))


class Table:
    """One table of a document: reads keys by type, and records the keys that have been read."""

    def __init__(
        self,
        document: Document,
        path: KeyPath,
        data: Mapping[str, object],
        read_files: dict[str, FileIdentity | None] | None = None,
    ) -> None:
        """Read `data`, the table at `path` of `document`; `read_files` of the table around it, if any."""
        self.document = document
        self._path = path
        self._data = data
        self._read_keys: set[str] = set()
        self._failed: set[tuple[str, int | None]] = set()
        self._unavailable: set[str] = set()  # secrets that cannot be read here
        self.read_files = {} if read_files is None else read_files
        """The files with secrets and certificates read for this table and the tables in it, as they were then."""

    def kept(self) -> KeptTable:
        """Return what is needed to read the table again when one of `read_files` has changed."""
        return KeptTable(self.document.file, self.document.other_readers, self._path, self._data, dict(self.read_files))

    def record_file(self, path: str) -> None:
        """Add the file at `path` to `read_files`; to be called before it is read."""
        self.read_files.setdefault(path, file_identity(path))

    def __contains__(self, key: str) -> bool:
        """Return whether the table has `key`. This does not count as reading it."""
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        """Return the keys of the table, in the file's order."""
        return iter(self._data)

    @property
    def line(self) -> int:
        """Return the line of the table's header."""
        return self.document.line(self._path)

    def line_of(self, path: KeyPath) -> int:
        """Return the line of the key at `path` below this table, or of the nearest enclosing one that has a line."""
        return self.document.line((*self._path, *path))

    @property
    def data(self) -> Mapping[str, object]:
        """Return the keys and values of the table, as parsed. This does not count as reading them."""
        return self._data

    def with_data(self, data: Mapping[str, object]) -> Table:
        """Return a table at the same position with `data` as its content."""
        return Table(self.document, self._path, data)

    def has_problem(self, key: str) -> bool:
        """Return whether `key` has a problem, so that its value is a placeholder."""
        return any(name == key for name, _ in self._failed)

    def add_problem(self, key: str, message: str, *, index: int | None = None, denied_path: str = "") -> None:
        """Add a problem of `key`, or of its element `index`; only the first one of each is kept."""
        if (key, None) not in self._failed and (key, index) not in self._failed:
            self._failed.add((key, index))
            self.document.problems.append(self._problem(key, message, index, denied_path=denied_path))

    def add_note(self, key: str, message: str, *, index: int | None = None, denied_path: str = "") -> None:
        """Add a note on `key`: information for the author that does not make the file unusable."""
        self.document.notes.append(self._problem(key, message, index, denied_path=denied_path))

    def _problem(self, key: str, message: str, index: int | None, *, denied_path: str) -> Problem:
        path = (*self._path, key) if index is None else (*self._path, key, index)
        name = ".".join(_bare(part) for part in (*self._path, key) if isinstance(part, str))
        return Problem(self.document.file, self.document.line(path), name, message, denied_path)

    def value(self, key: str, default: object = REQUIRED) -> object:
        """Return the value at `key` without a check of its type; None if a required key is missing."""
        self._read_keys.add(key)
        if key in self._data:
            return self._data[key]
        if default is REQUIRED:
            self.add_problem(key, "missing")
            return None
        return default

    def text(self, key: str, default: str | Required = REQUIRED, *, choices: Collection[str] | None = None) -> str:
        """Return the text at `key`, one of `choices` if given. An empty text is a problem."""
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
        """Return the array of texts at `key`. Other elements are problems and are left out."""
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
        """Return the number at `key`, which must be finite and within the limits."""
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
        """Return the integer at `key`, which must be within the limits."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(key, "a whole number", value)
        elif self._within(key, value, minimum, maximum):
            return value
        return 0 if default is REQUIRED else default

    def boolean(self, key: str, default: bool | Required = REQUIRED) -> bool:  # noqa: FBT001 - as the other readers
        """Return the boolean at `key`."""
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
        """Return the duration at `key` in ns, within the limits; for its notation see `watchdog.config.durations`."""
        value = self.value(key, default)
        placeholder = parse_duration(minimum if default is REQUIRED else default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            unit = "d" if isinstance(default, str) and default.endswith("d") else "s"  # the likely one
            self.add_problem(key, f'needs a unit: "{value}{unit}"?')
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
        minimum_ns, maximum_ns = parse_duration(minimum), parse_duration(maximum)
        if minimum_ns <= duration_ns <= maximum_ns:
            return duration_ns
        limit = f"at least {minimum}" if duration_ns < minimum_ns else f"at most {maximum}"
        self.add_problem(key, f"must be {limit}, not {format_duration(duration_ns)}")
        return placeholder

    def table(self, key: str) -> Table:
        """Return the table at `key`, an empty one if the key is missing."""
        value = self.value(key, {})
        if isinstance(value, dict):
            return Table(self.document, (*self._path, key), value, self.read_files)
        self._wrong_type(key, "a table", value)
        return Table(self.document, (*self._path, key), {})

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return the tables of the array at `key` (`[[key]]` in the file), none if the key is missing."""
        value = self.value(key, [])
        if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
            name = ".".join(_bare(part) for part in (*self._path, key) if isinstance(part, str))
            self.add_problem(key, f"must be tables: write [[{name}]]")
            return ()
        return tuple(Table(self.document, (*self._path, key, index), element) for index, element in enumerate(value))

    def secret(
        self, key: str, *, required: bool = True, is_url: bool = False, is_path_public: bool = False
    ) -> Secret | None:
        """Return the secret given under exactly one of the keys of `secret_forms`.

        A file is read now. None if no secret is given, or if it has a problem. `is_url`: the value is a URL, which may
        contain no secret; in a file that is open to others it gets a note instead of a problem, unless it has a login.
        `is_path_public`: of a URL only the login can be a secret.
        """
        form = self._only_form(key, required=required)
        if form is None:
            return None
        text = self._data[form]
        if not isinstance(text, str) or not text:
            self.add_problem(form, f"must be a text, not {_type_name(text)}")
            return None
        if form == key:
            return self._inline(key, text, is_url=is_url, is_path_public=is_path_public)
        return self._read_secret(form, key, text)

    def url_with_login(self, key: str, default: str) -> Secret:
        """Return the URL at `key`, which can have any form of a secret: only its login is one; `default` without it."""
        return self.secret(key, required=False, is_url=True, is_path_public=True) or Secret(default)

    def urls_with_logins(self, key: str) -> tuple[Secret, ...]:
        """Return the URLs at `key`: an array, or in another form of a secret one URL per line.

        Only their logins are secrets. Empty lines and lines that begin with # are skipped.
        """
        form = self._only_form(key, required=True)
        if form is None:
            return ()
        if form == key:
            found = (
                self._inline(key, text, is_url=True, is_path_public=True, index=index)
                for index, text in enumerate(self.texts(key))
            )
            return tuple(url for url in found if url is not None)
        text = self._data[form]
        if not isinstance(text, str) or not text:
            self.add_problem(form, f"must be a text, not {_type_name(text)}")
            return ()
        secret = self._read_secret(form, key, text)
        lines = () if secret is None else map(str.strip, secret.reveal().splitlines())
        return tuple(Secret(line) for line in lines if line and not line.startswith("#"))

    def _only_form(self, key: str, *, required: bool) -> str | None:
        forms = secret_forms(key)
        self._read_keys.update(forms)
        given = [form for form in forms if form in self._data]
        if len(given) > 1:
            self.add_problem(given[1], f"give only one of {', '.join(given)}")
        elif not given and required:
            self.add_problem(key, f"missing: give one of {', '.join(forms)}")
        return given[0] if len(given) == 1 else None

    def given_form(self, key: str) -> str | None:
        """Return the key under which the secret `key` is given, None if it is not given."""
        return next((form for form in secret_forms(key) if form in self._data), None)

    def is_unavailable(self, key: str) -> bool:
        """Return whether the secret `key` is given and cannot be read here, which is a note."""
        return key in self._unavailable

    def _read_secret(self, form: str, key: str, text: str) -> Secret | None:
        _, file_form, _, credential_form = secret_forms(key)
        path = {file_form: text, credential_form: credential_path(text)}.get(form)
        if path is not None:
            self.record_file(path)
        read = dict(zip(secret_forms(key)[1:], _READERS, strict=True))[form]
        try:
            return read(text)
        except SecretError as error:
            if error.is_unavailable and not self._is_required(form, key):
                self._unavailable.add(key)
                self.add_note(form, f"not checked: {error}")
            else:
                self.add_problem(form, str(error), denied_path=error.denied_path)
            return None

    def _is_required(self, form: str, key: str) -> bool:
        # The environment of a service, and its credentials, are unknown outside of it.
        document = self.document
        return document.require_secrets and (document.is_in_service or form == secret_forms(key)[1])

    def _inline(
        self, key: str, text: str, *, is_url: bool, is_path_public: bool = False, index: int | None = None
    ) -> Secret | None:
        document = self.document
        try:
            secret = checked_secret(text, "the value")
        except SecretError as error:
            self.add_problem(key, str(error), index=index)
            return None
        has_login = _LOGIN.match(text) is not None
        is_public = is_url and not has_login and (is_path_public or _BARE_URL.fullmatch(text) is not None)
        if not is_public:
            document.inline_secrets.append((*self._path, key))
        if document.other_readers is None or is_public:
            return secret
        exposed = f"is written in a file that is open to {document.other_readers}"
        remedy = f"use {key}_file instead, or {restrict_command(document.file)}"
        if is_url and not has_login:
            self.add_note(key, f"{exposed}: if it contains a secret, {remedy}", index=index)
        elif document.require_secrets:
            self.add_problem(key, f"{exposed}: {remedy}", index=index)
            return None
        else:
            self.add_note(key, f"{exposed}: {remedy}", index=index)
        return secret

    def reject_unknown_keys(self) -> None:
        """Add a problem for every key of this table that has not been read. Tables inside it are not checked."""
        for key in self._data:
            if key not in self._read_keys:
                self.add_problem(key, suggestions.unknown_name("key", key, self._read_keys))

    def _within(self, key: str, value: float, minimum: float, maximum: float) -> bool:
        if not -_NUMBER_LIMIT < value < _NUMBER_LIMIT:  # NaN too
            self.add_problem(key, "must be a finite number below 2^63")
            return False
        if value < minimum:
            self.add_problem(key, f"must be at least {_plain(minimum)}, not {suggestions.quote_value(value)}")
        elif value > maximum:
            self.add_problem(key, f"must be at most {_plain(maximum)}, not {suggestions.quote_value(value)}")
        return minimum <= value <= maximum

    def _wrong_type(self, key: str, wanted: str, value: object) -> None:
        if key in self._data:  # a missing key has its own problem
            self.add_problem(key, f"must be {wanted}, not {_type_name(value)}")


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A table whose files may change after the reading: its values, and the files as they were read.

    It keeps neither the document nor its text; problems of a later reading have the line 1.
    """

    file: str
    other_readers: str | None
    path: KeyPath
    data: Mapping[str, object]
    read_files: Mapping[str, FileIdentity | None]

    def has_changed(self) -> bool:
        """Return whether one of the files was replaced or written since the reading."""
        return any(file_identity(path) != identity for path, identity in self.read_files.items())

    def table(self) -> Table:
        """Return the table as before any key of it was read."""
        return Table(Document("", {}, self.file, other_readers=self.other_readers), self.path, self.data)


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
