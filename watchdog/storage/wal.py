"""Detect lost transactions in a damaged WAL, which SQLite does not report.

SQLite takes the first frame with a wrong checksum for the end of the WAL. Behind the end of an intact WAL are frames of
a former round, with other salts, or one unfinished transaction. Source: SQLite, fileformat2.html, "The Write-Ahead
Log".
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_SALTS_OF_HEADER, _SALTS_OF_FRAME = slice(16, 24), slice(8, 16)
_SIZE_AFTER_COMMIT = slice(4, 8)  # zero in each frame except the last one of a transaction


def commits_behind(path: Path, frames: int, page_bytes: int) -> int:
    """Return the number of transactions of this round in the WAL `path`, behind the first `frames` frames.

    One can be there after a crash: it was never confirmed as being on disk. Of more, all but the last were confirmed.
    """
    found = 0
    with contextlib.suppress(OSError), path.open("rb") as log:
        salts = log.read(_HEADER_BYTES)[_SALTS_OF_HEADER]
        frame_bytes = _FRAME_HEADER_BYTES + page_bytes
        at = _HEADER_BYTES + frames * frame_bytes
        while len(frame := os.pread(log.fileno(), _FRAME_HEADER_BYTES, at)) == _FRAME_HEADER_BYTES:
            found += frame[_SALTS_OF_FRAME] == salts and any(frame[_SIZE_AFTER_COMMIT])
            at += frame_bytes
    return found
