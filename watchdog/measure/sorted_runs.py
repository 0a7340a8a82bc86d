"""Entries in the order of their keys, more than memory should hold: sorted runs in a temporary file.

An external merge sort (Knuth TAOCP 3, 5.4): the newest entries are in memory; a full buffer is sorted and written as
one run. The file has no name, and is gone with the process.
"""

from __future__ import annotations

import heapq
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from watchdog.errors import WatchdogError

# For large files that need not survive; /tmp is memory on many hosts (file-hierarchy(7)).
_FOLDER = "/var/tmp"  # noqa: S108 - a file without a name
_BUFFER_BYTES = 2 << 20  # of entries as JSON
_WRITTEN_BYTES = 1 << 18  # at a time
_BLOCK_BYTES = 4096  # read at a time from each run
_MAX_MERGED_RUNS = 1024  # runs that are read at a time: 4 MiB of blocks

Key = list[Any]
Entry = tuple[Key, Any]
_Line = tuple[Key, bytes]
_first = itemgetter(0)


class SortedRuns:
    """Keys and values that JSON can represent, sorted by key. All keys have the same types at the same places."""

    def __init__(self, max_buffer_bytes: int = _BUFFER_BYTES) -> None:
        """Start empty; each `max_buffer_bytes` of entries, as JSON, go to the file."""
        self._max_buffer_bytes = max_buffer_bytes
        self._buffer: list[_Line] = []
        self._buffer_bytes = 0
        self._file: FileIO | None = None
        self._runs: list[tuple[int, int]] = []  # first byte, and byte after the last

    def add(self, key: Key, value: object) -> None:
        """Add one entry.

        Raises:
            WatchdogError: the file cannot be written; with the remedy.
        """
        line = json.dumps([key, value]).encode() + b"\n"
        self._buffer.append((key, line))
        self._buffer_bytes += len(line)
        if self._buffer_bytes >= self._max_buffer_bytes:
            self._write_run(sorted(self._buffer, key=_first))
            self._buffer, self._buffer_bytes = [], 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries in the order of their keys; entries with the same key in the order of `add`.

        Raises:
            WatchdogError: the file cannot be read or written; with the remedy.
        """
        while len(self._runs) > _MAX_MERGED_RUNS:
            merged, self._runs = self._runs[:_MAX_MERGED_RUNS], self._runs[_MAX_MERGED_RUNS:]
            self._write_run(heapq.merge(*map(self._lines, merged), key=_first))
            self._runs.insert(0, self._runs.pop())  # the place of its runs, which keeps the order of `add`
        for key, line in heapq.merge(*map(self._lines, self._runs), sorted(self._buffer, key=_first), key=_first):
            yield key, json.loads(line)[1]

    def _write_run(self, lines: Iterable[_Line]) -> None:
        try:
            if self._file is None:
                self._file = _temporary_file()
                weakref.finalize(self, self._file.close)
            first = self._file.seek(0, os.SEEK_END)
            for block in _blocks(lines):
                _write_all(self._file, block)
            self._runs.append((first, self._file.tell()))
        except OSError as error:
            raise _file_error(error) from error

    def _lines(self, run: tuple[int, int]) -> Iterator[_Line]:
        if self._file is None:
            return
        at, end = run
        rest = b""
        while at < end:
            try:
                block = os.pread(self._file.fileno(), min(_BLOCK_BYTES, end - at), at)
            except OSError as error:
                raise _file_error(error) from error
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield json.loads(line)[0], line + b"\n"


def _blocks(lines: Iterable[_Line]) -> Iterator[bytes]:
    block = bytearray()
    for _, line in lines:
        block += line
        if len(block) >= _WRITTEN_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _write_all(file: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _temporary_file() -> FileIO:
    folder = Path(os.environ.get("TMPDIR") or _FOLDER)
    return tempfile.TemporaryFile(buffering=0, dir=folder if folder.is_dir() else None)


def _file_error(error: OSError) -> WatchdogError:
    return WatchdogError(
        f"cannot keep rows in a temporary file: {error.strerror}",
        remedy="set TMPDIR to a folder with free space, or print a table with --limit",
    )
