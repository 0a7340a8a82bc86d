"""Secrets: text that never shows in a log, a message or a traceback, and where it is read from."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from watchdog.errors import WatchdogError

_MOST_BYTES = 65_536
_MASK = "<secret>"


class Secret:
    """A text that only `reveal` shows."""

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


class SecretError(WatchdogError):
    """A secret's file or variable cannot be used; `absent` when it may exist for the daemon's user, only not for us."""

    def __init__(self, text: str, *, absent: bool) -> None:
        """Keep the text, which names the place and never its content."""
        super().__init__(text)
        self.absent = absent


def open_for_reading(path: str) -> BinaryIO:
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
        SecretError: missing, unreadable, not a regular file, readable by everyone, empty, over 64 KiB or not UTF-8.
    """
    if not path.startswith("/"):
        raise SecretError(f"must be an absolute path, not {path!r}", absent=False)
    try:
        file = open_for_reading(path)
    except OSError as error:
        raise SecretError(f"cannot read {path!r}: {error.strerror}", absent=True) from None
    except ValueError:  # a NUL in it
        raise SecretError(f"cannot read {path!r}: not a path", absent=False) from None
    with file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise SecretError(f"{path!r} is not a regular file", absent=False)
        if mode & stat.S_IROTH:
            raise SecretError(f"everyone on this host can read {path!r}: chmod o-r {path}", absent=False)
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
        raise SecretError(f"environment variable {name!r} is not set", absent=True)
    return Secret(text)
