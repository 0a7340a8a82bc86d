"""The last good configuration: the files of the newest start or reload that was accepted, in the state folder.

A daemon whose files are broken starts on it, so that a reboot with a mistake in a rule still leaves a guard. Root reads
it with the rights of the daemon's account, which owns it: no file is read for it that the account cannot read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from watchdog.config.bounded_file import UnusableFile, read_regular_file
from watchdog.daemon.configuration import Configuration, ConfigurationSources, ConfigurationTexts, read_configuration
from watchdog.errors import ConfigError
from watchdog.kernel import privileges
from watchdog.receivers.base import OpenReceiverState
from watchdog.resources import shipped_rules_folder
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
        rules = None if texts.rules is None else {Path(name).name: text for name, text in texts.rules.items()}
        content = json.dumps({"sources": self._key(), "settings": texts.settings, "rules": rules}).encode()
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
            except (OSError, UnusableFile, ConfigError, ValueError, KeyError, TypeError, AttributeError):
                return None

    def _read(self, open_state: OpenReceiverState) -> Configuration | None:
        content, _ = read_regular_file(str(self._file), _MAX_BYTES)
        document = json.loads(content)
        if document["sources"] != self._key():
            return None
        sources = ConfigurationSources(*self._unpack(document), self._sources.interval_ns)
        return read_configuration(sources, open_state)

    def _unpack(self, document: dict[str, Any]) -> tuple[str, str]:
        """Write the files to a folder; return the paths of settings and rules."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        _write(self._folder / _SETTINGS, document["settings"])
        if document["rules"] is None:
            return str(self._folder / _SETTINGS), str(shipped_rules_folder())
        (self._folder / _RULES).mkdir(mode=0o700)
        for name, text in document["rules"].items():
            _write(self._folder / _RULES / Path(name).name, text)
        return str(self._folder / _SETTINGS), str(self._folder / _RULES)

    def _key(self) -> list[str | None]:
        return [self._sources.settings_file, self._sources.rules_path]


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
