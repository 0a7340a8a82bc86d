"""Secrets: text that never shows in a log, a message or a traceback, and where it is read from."""

from __future__ import annotations

import os
import re
import stat
from typing import BinaryIO, NoReturn, Self, SupportsIndex

from watchdog.config.permissions import other_readers, restrict_command
from watchdog.errors import WatchdogError

_MOST_BYTES = 65_536
_MASK = "<secret>"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
# A slip of the hand puts the secret where its name should be: what no one would use as a name is not told.
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}", re.ASCII)  # no path; systemd takes longer ones
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)


class Secret:
    """A text that only `reveal` shows: not a message, a format, a traceback's locals, a copy or a pickle."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Keep `text`."""
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; hand it to the wire only."""
        return self._text

    def __repr__(self) -> str:
        """Return a mask."""
        return _MASK

    def __format__(self, spec: str) -> str:
        """Return a mask, whatever the format."""
        return format(_MASK, spec)

    def __copy__(self) -> Self:
        """Return the secret itself, as for any value that never changes."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the secret itself."""
        return self

    def __getstate__(self) -> NoReturn:
        """Refuse: what asks for it writes it down somewhere.

        Raises:
            TypeError: always.
        """
        raise TypeError("a secret is not to be written down")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse, as `__getstate__`."""
        self.__getstate__()


class SecretError(WatchdogError):
    """A secret's file or variable cannot be used; `absent` when it may exist for the daemon's user, only not for us."""

    def __init__(self, text: str, *, absent: bool) -> None:
        """Keep the text, which names the place and never its content."""
        super().__init__(text)
        self.is_unavailable = absent


def open_without_blocking(path: str) -> BinaryIO:
    """Open `path` without ever waiting, as for a FIFO that nobody writes to.

    Raises:
        OSError: it cannot be opened, or is a folder.
        ValueError: no file can have such a name.
    """
    return open(path, "rb", opener=_open_at_once)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def secret_from_file(path: str) -> Secret:
    """Read the secret in `path`, an absolute path; one newline at its end is not part of it.

    Raises:
        SecretError: missing, unreadable, not a regular file, open to others, empty, over 64 KiB or not UTF-8.
    """
    if not path.startswith("/"):
        raise SecretError("must be an absolute path to a file that holds the secret", absent=False)
    return _read(path, private=True)


def secret_from_credential(name: str) -> Secret:
    """Read the secret that systemd gave the service as credential `name` (LoadCredential=, systemd.exec(5)).

    Raises:
        SecretError: no service, no such credential, or as `secret_from_file`.
    """
    if not _CREDENTIAL.fullmatch(name):
        raise SecretError("must be the name of a credential: a word of 40 letters at most", absent=False)
    folder = os.environ.get(_CREDENTIALS, "")
    if not folder.startswith("/"):
        missing = f"no credentials here, ${_CREDENTIALS} is not set"
        raise SecretError(f"{missing}: give the unit LoadCredential={name}:/path", absent=True)
    # The folder is the service's alone. Its files look open to a group, for that is how an access list of one user
    # shows in a mode (systemd/systemd issues 29096, 29435).
    return _read(os.path.join(folder, name), private=False)  # noqa: PTH118 - as it is told


def _read(path: str, *, private: bool) -> Secret:
    try:
        file = open_without_blocking(path)
    except OSError as error:
        raise SecretError(f"cannot read {path!r}: {error.strerror}", absent=True) from None
    except ValueError:  # a NUL in it
        raise SecretError(f"cannot read {path!r}: not a path", absent=False) from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path!r} is not a regular file", absent=False)
        if private and (others := other_readers(status)):
            raise SecretError(f"{path!r} is open to {others}: {restrict_command(path)}", absent=False)
        content = file.read(_MOST_BYTES + 1)
    return _secret_from_bytes(content, path)


def _secret_from_bytes(content: bytes, path: str) -> Secret:
    if len(content) > _MOST_BYTES:
        raise SecretError(f"{path!r} is over {_MOST_BYTES} bytes: not a secret", absent=False)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{path!r} is not UTF-8 text", absent=False) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretError(f"{path!r} is empty", absent=False)
    return Secret(text)


def secret_from_environment(name: str) -> Secret:
    """Read the secret in the environment variable `name`.

    Raises:
        SecretError: unset or empty.
    """
    text = os.environ.get(name)
    if not text:
        told = repr(name) if _VARIABLE.fullmatch(name) else "of that name"
        raise SecretError(f"environment variable {told} is not set", absent=True)
    return Secret(text)
