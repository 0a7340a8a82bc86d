"""Reading a BPF ring buffer of records of one size, all of a tick at once.

Layout: kernel/bpf/ringbuf.c. The consumer's position is on a page of its own, which the reader may write; after it
come the producer's position and the data, mapped twice in a row, so that no record is ever cut in two.
"""

from __future__ import annotations

import mmap
import struct

import numpy as np
from numpy.typing import NDArray

_BUSY, _DISCARDED = np.uint32(1 << 31), np.uint32(1 << 30)


class Ring:
    """One reader of a ring buffer. Its pages count as this process's memory while it is open."""

    def __init__(self, fd: int, size: int, record: np.dtype[np.void]) -> None:
        """Map the ring behind `fd`, of `size` bytes, whose records are all of type `record`, a multiple of 8 bytes."""
        self._size = size
        self._framed = np.dtype([("length", "<u4"), ("page", "<u4"), ("record", record)])
        self._consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        length = mmap.PAGESIZE + 2 * size
        self._producer = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)

    def read(self) -> NDArray[np.void]:
        """Return the records written since the last read, (n,) of `record`, and make room for others."""
        consumed, produced = self._position(self._consumer), self._position(self._producer)
        count = (produced - consumed) // self._framed.itemsize
        at = mmap.PAGESIZE + consumed % self._size
        frames = np.frombuffer(self._producer, self._framed, count, at).copy() if count else np.empty(0, self._framed)
        unfinished = np.flatnonzero(frames["length"] & _BUSY)
        if len(unfinished):  # reserved on another CPU, not yet written
            frames = frames[: unfinished[0]]
        struct.pack_into("<Q", self._consumer, 0, consumed + len(frames) * self._framed.itemsize)
        records: NDArray[np.void] = frames["record"][(frames["length"] & _DISCARDED) == 0]
        return records

    def close(self) -> None:
        """Unmap it."""
        self._consumer.close()
        self._producer.close()

    def _position(self, page: mmap.mmap) -> int:
        position: int = struct.unpack_from("<Q", page)[0]
        return position
