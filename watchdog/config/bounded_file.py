"""Files that a configuration names, read whole and without blocking."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO


class UnusableFile(ValueError):
    """A file of the wrong kind or size. The text continues a sentence that begins with the file: "is not …"."""


def read_regular_file(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the status of the file at `path`.

    Raises:
        OSError: `path` cannot be opened, or is a folder.
        UnusableFile: not a regular file, over `max_bytes` bytes, or a path that no file can have.
    """
    try:
        file = _open_without_blocking(path)
    except ValueError:  # the path contains a NUL character
        raise UnusableFile("is not a path") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFile("is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UnusableFile(f"is over {max_bytes} bytes")
    return content, status


def _open_without_blocking(path: str) -> BinaryIO:
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY))
