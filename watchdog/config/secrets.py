"""Secrets: values that never appear in a log, a message or a traceback; and the places that they are read from."""

from __future__ import annotations

import os
import re
from typing import NoReturn, Self, SupportsIndex

from watchdog.config.bounded_file import UnusableFile, read_regular_file
from watchdog.config.permissions import other_readers, restrict_command
from watchdog.config.placeholders import placeholder_problem
from watchdog.config.trusted_files import data_owners, flaws_on_path
from watchdog.errors import WatchdogError

_MAX_BYTES = 65_536
_MASK = "<secret>"
# Left by editors and copying around a text: white space, byte order marks, characters without width.
_SURROUNDINGS = re.compile(r"^[\s\ufeff\u200b-\u200d\u2060\x00]+|[\s\ufeff\u200b-\u200d\u2060\x00]+$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
# A user can write the secret itself in place of its name. Messages therefore show a name only if it has this form.
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}", re.ASCII)  # not a path; systemd accepts longer names
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)


class Secret:
    """A text that only `reveal` returns; formatting, `repr`, copies and pickling do not show it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep `text`."""
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Pass it only to the connection that needs it."""
        return self._text

    def __repr__(self) -> str:
        """Return a mask."""
        return _MASK

    def __format__(self, spec: str) -> str:
        """Return a mask for every format."""
        return format(_MASK, spec)

    def __copy__(self) -> Self:
        """Return the secret itself, because it is immutable."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the secret itself."""
        return self

    def __getstate__(self) -> NoReturn:
        """Refuse to be serialized.

        Raises:
            TypeError: always.
        """
        raise TypeError("a secret cannot be serialized")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be serialized, as `__getstate__`."""
        self.__getstate__()


class SecretError(WatchdogError):
    """A secret's file, variable or credential cannot be used.

    `is_unavailable`: it cannot be read here; the daemon's account on its host may be able to read it.
    `denied_path`: the file, where this account may not read it, else "".
    """

    def __init__(self, text: str, *, is_unavailable: bool, denied_path: str = "", remedy: str = "") -> None:
        """Keep the text, which names the place of the secret and never its content."""
        super().__init__(text, remedy=remedy)
        self.is_unavailable = is_unavailable
        self.denied_path = denied_path


def secret_from_file(path: str) -> Secret:
    """Read the secret in the file at `path`, an absolute path. White space and byte order marks around it are removed.

    Raises:
        SecretError: missing, unreadable, not a regular file, readable or writable by others, over 64 KiB, not UTF-8, or
            a content that nobody can have meant (see `checked_secret`).
    """
    if not path.startswith("/"):
        raise SecretError("must be an absolute path to a file that contains the secret", is_unavailable=False)
    return _read(path, private=True)


def credential_path(name: str) -> str | None:
    """Return the path of the file of a credential, None if the process has no credentials."""
    folder = os.environ.get(_CREDENTIALS, "")
    # Messages show the path as it is joined.
    return os.path.join(folder, name) if folder.startswith("/") else None  # noqa: PTH118


def secret_from_credential(name: str) -> Secret:
    """Read the secret that systemd passed to the service as credential `name` (LoadCredential=, systemd.exec(5)).

    Raises:
        SecretError: the process is no service with credentials, there is no such credential, or as `secret_from_file`.
    """
    if not _CREDENTIAL.fullmatch(name):
        raise SecretError("must be the name of a credential, at most 40 characters", is_unavailable=False)
    path = credential_path(name)
    if path is None:
        text = f"no credentials available, ${_CREDENTIALS} is not set"
        raise SecretError(text, is_unavailable=True, remedy=f"add LoadCredential={name}:/path to the unit")
    # Only the service can access the folder. Its files look readable by a group, because the mode shows an access
    # list of one user in this way (systemd/systemd issues 29096, 29435).
    return _read(path, private=False)


def _read(path: str, *, private: bool) -> Secret:
    try:
        content, status = read_regular_file(path, _MAX_BYTES)
    except OSError as error:
        denied_path = path if isinstance(error, PermissionError) else ""
        text = f"cannot read {path!r}: {error.strerror}"
        raise SecretError(text, is_unavailable=True, denied_path=denied_path) from None
    except UnusableFile as error:
        raise SecretError(f"{path!r} {error}", is_unavailable=False) from None
    if private and (others := other_readers(status, path)):
        text = f"{path!r} is open to {others}"
        raise SecretError(text, is_unavailable=False, remedy=restrict_command(path))
    for flaw in flaws_on_path(path, data_owners()):
        raise SecretError(f"{flaw.path!r}: {flaw.reason}", is_unavailable=False, remedy=flaw.remedy)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{path!r} is not UTF-8 text", is_unavailable=False) from None
    return checked_secret(text, repr(path))


def checked_secret(text: str, name: str) -> Secret:
    """Return the secret in `text` without the white space and byte order marks around it; `name` is its place.

    Raises:
        SecretError: the text is empty, contains control characters, or is a placeholder.
    """
    text = _SURROUNDINGS.sub("", text)
    if not text:
        raise SecretError(f"{name} is empty", is_unavailable=False)
    if _CONTROL.search(text):
        raise SecretError(f"{name} contains control characters", is_unavailable=False)
    if problem := placeholder_problem(text):
        raise SecretError(f"{name} {problem}", is_unavailable=False)
    return Secret(text)


def secret_from_environment(name: str) -> Secret:
    """Read the secret in the environment variable `name`.

    Raises:
        SecretError: the variable is unset or empty, or as `checked_secret`.
    """
    text = os.environ.get(name)
    shown = repr(name) if _VARIABLE.fullmatch(name) else "of that name"
    if not text:
        raise SecretError(f"environment variable {shown} is not set", is_unavailable=True)
    return checked_secret(text, f"environment variable {shown}")
