"""What SQLite does not tell of its log: that something stands behind the place where it stopped reading.

It takes the first frame whose checksum is wrong for the log's end. Behind the end of a log that is whole are frames of
a former round, with other salts, or one transaction that was never finished. Source: SQLite, fileformat2.html, "The
Write-Ahead Log".
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_SALTS_OF_HEADER, _SALTS_OF_FRAME = slice(16, 24), slice(8, 16)
_SIZE_AFTER_COMMIT = slice(4, 8)  # zero in every frame but the last of a transaction


def commits_behind(path: Path, frames: int, page_bytes: int) -> int:
    """Return how many transactions of its round stand in the log `path` behind the `frames` frames that were read.

    One can be there after a crash: it was never said to be on disk. Of more, all but the last were.
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
