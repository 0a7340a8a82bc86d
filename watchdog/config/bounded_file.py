"""Files that a configuration names, read whole, without blocking, within a second."""

from __future__ import annotations

import errno
import os
import stat

from watchdog.clock import SECOND_NS, SystemClock

_CHUNK_BYTES = 65_536
_MAX_NS = SECOND_NS


class UnusableFile(ValueError):
    """A file of the wrong kind or size. The text continues a sentence that begins with the file: "is not …"."""


def read_regular_file(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the status of the file at `path`.

    A call of the kernel that hangs, on a network file system without its server, is not cut short.

    Raises:
        OSError: `path` cannot be opened or read, takes over a second, or is a folder.
        UnusableFile: not a regular file, over `max_bytes` bytes, written at the same time, or a path that no file can
            have.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # the path contains a NUL character
        raise UnusableFile("is not a path") from None
    try:
        before = os.fstat(descriptor)
        if stat.S_ISDIR(before.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(before.st_mode):
            raise UnusableFile("is not a regular file")
        content = _read(descriptor, max_bytes, path)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnusableFile("was written while it was read: write another file and rename it")
    return content, after


def _read(descriptor: int, max_bytes: int, path: str) -> bytes:
    clock = SystemClock()
    content, end_ns = bytearray(), clock.boottime_ns() + _MAX_NS
    while chunk := os.read(descriptor, min(_CHUNK_BYTES, max_bytes + 1 - len(content))):
        content += chunk
        if len(content) > max_bytes:
            raise UnusableFile(f"is over {max_bytes} bytes")
        if clock.boottime_ns() > end_ns:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
    return bytes(content)
