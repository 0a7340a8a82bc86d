"""The identity of a file, to notice that it was replaced or written again."""

from __future__ import annotations

from pathlib import Path

FileIdentity = tuple[int, int, int, int]
"""(device, inode, time of the last change of the content in ns, size in bytes)."""


def file_identity(path: str) -> FileIdentity | None:
    """Return the identity of the file at `path`, also behind links; None if it cannot be found."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
