"""The last good configuration: the files of the newest start or reload that was accepted, in the state folder.

A daemon whose files are broken starts on it, so that a reboot with a mistake in a rule still leaves a guard. Root reads
it with the rights of the daemon's account, which owns it: no file is read for it that the account cannot read. Secrets
that stand in the settings are left out: they are taken from the settings of the start, as far as these are TOML.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from watchdog.config.bounded_file import UnusableFile, read_regular_file
from watchdog.config.line_numbers import KeyPath
from watchdog.config.settings import DEFAULT_SETTINGS_FILE, open_document
from watchdog.daemon.configuration import Configuration, ConfigurationSources, ConfigurationTexts, read_configuration
from watchdog.errors import ConfigError
from watchdog.kernel import privileges
from watchdog.receivers.base import OpenReceiverState
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.rule_source import format_toml, toml_key
from watchdog.storage.folder import LAST_GOOD_FILE_NAME, LAST_GOOD_FOLDER_NAME

_MAX_BYTES: Final = 16_000_000
_SETTINGS, _RULES = "watchdog.toml", "rules.d"


class LastGood:
    """The saved files of the configuration that `sources` name."""

    def __init__(self, state_folder: Path, sources: ConfigurationSources) -> None:
        """Keep the files in `state_folder`."""
        self._file = state_folder / LAST_GOOD_FILE_NAME
        self._folder = state_folder / LAST_GOOD_FOLDER_NAME
        self._sources = sources
        self._saved: bytes | None = None  # digest

    def save(self, texts: ConfigurationTexts) -> None:
        """Write the files, unless they are those of the last call.

        Raises:
            OSError: the state folder cannot be written.
        """
        settings = copy.deepcopy(dict(texts.settings))
        document = {
            "sources": self._key(),
            "settings": settings,
            "secrets": [_take_out(settings, path) for path in dict.fromkeys(texts.secrets)],
            "rules": None if texts.rules is None else {Path(name).name: text for name, text in texts.rules.items()},
        }
        content = json.dumps(document, default=str).encode()
        digest = hashlib.sha256(content).digest()
        if digest == self._saved:
            return
        new = self._file.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(self._file)
        self._saved = digest

    def read(self, open_state: OpenReceiverState) -> Configuration | None:
        """Return the saved configuration, read with the rights of the daemon's account; None if there is none.

        None also where it is of other files, or cannot be used any more.
        """
        account = privileges.service_account() if os.geteuid() == 0 else None
        with contextlib.nullcontext() if account is None else privileges.acting_as(account):
            try:
                return self._read(open_state)
            except (OSError, UnusableFile, ConfigError, ValueError, LookupError, TypeError, AttributeError):
                return None

    def _read(self, open_state: OpenReceiverState) -> Configuration | None:
        content, _ = read_regular_file(str(self._file), _MAX_BYTES)
        document = json.loads(content)
        if document["sources"] != self._key():
            return None
        settings = document["settings"]
        if document["secrets"]:
            present = open_document(self._sources.settings_file or DEFAULT_SETTINGS_FILE).root.data
            for path in document["secrets"]:
                _table_of(settings, path)[path[-1]] = _table_of(present, path)[path[-1]]
        file, rules = self._unpack(settings, document["rules"])
        try:
            return read_configuration(ConfigurationSources(str(file), rules, self._sources.interval_ns), open_state)
        finally:
            file.unlink()  # it has secrets

    def _unpack(self, settings: Mapping[str, Any], rules: Mapping[str, str] | None) -> tuple[Path, str]:
        """Write the files to a folder; return the paths of settings and rules."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        file = self._folder / _SETTINGS
        _write(file, "\n".join(_toml_lines(settings)) + "\n")
        if rules is None:
            return file, str(shipped_rules_folder())
        (self._folder / _RULES).mkdir(mode=0o700)
        for name, text in rules.items():
            _write(self._folder / _RULES / Path(name).name, text)
        return file, str(self._folder / _RULES)

    def _key(self) -> list[str | None]:
        return [self._sources.settings_file, self._sources.rules_path]


def _take_out(settings: dict[str, Any], path: KeyPath) -> list[str]:
    """Remove the value at `path`; return the path with the name of a receiver in place of its number."""
    table: Any = settings
    named: list[str] = []
    for part in path[:-1]:
        table = table[part]
        named.append(table["name"] if isinstance(part, int) else str(part))
    table.pop(path[-1], None)
    return [*named, str(path[-1])]


def _table_of(settings: Any, path: list[str]) -> Any:
    """Return the table that has the last key of `path`, as `_take_out` returned it."""
    for part in path[:-1]:
        if isinstance(settings, list):
            [settings] = [one for one in settings if one["name"] == part]
        else:
            settings = settings[part]
    return settings


def _toml_lines(settings: Mapping[str, Any]) -> Iterator[str]:
    tables = {key: value for key, value in settings.items() if _is_table(value)}
    yield from _entry_lines({key: value for key, value in settings.items() if key not in tables})
    for key, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            yield f"[[{toml_key(key)}]]" if isinstance(value, list) else f"[{toml_key(key)}]"
            yield from _entry_lines(table)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _entry_lines(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{toml_key(key)} = {format_toml(value)}"


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
