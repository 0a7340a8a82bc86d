"""Reads a BPF ring buffer with records of one size, all records of a tick at once.

Layout: kernel/bpf/ringbuf.c. The consumer's position is on a page of its own, which the reader can write; the
producer's is on the next page; the data follow, mapped twice in a row, so that no record is split.
"""

from __future__ import annotations

import mmap
import struct

import numpy as np
from numpy.typing import NDArray

# "@Q" is read as one word. "<Q" is read byte by byte while the kernel writes: the position could be torn.
_POSITION = struct.Struct("@Q")
_BUSY = np.uint32(1 << 31)
_HEADER_BYTES = 8


def ring_size(record_count: int, record_type: np.dtype[np.void]) -> int:
    """Return the size in bytes of the smallest ring for `record_count` records: a power of two, and whole pages."""
    max_bytes = record_count * (record_type.itemsize + _HEADER_BYTES)  # one byte always stays free
    return max(mmap.PAGESIZE, 1 << max_bytes.bit_length())


class RingBuffer:
    """The only reader of a ring buffer without discarded records.

    Only the two positions stay mapped: pages of the ring would count as memory of this process.
    """

    def __init__(self, fd: int, size: int, record_type: np.dtype[np.void]) -> None:
        """Read the ring behind `fd`, of `size` bytes. All records are of `record_type`, a multiple of 8 bytes."""
        self._fd = fd
        self._size = size
        self._framed = np.dtype([("length", "<u4"), ("page", "<u4"), ("record", record_type)])
        self._consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)

    def read(self) -> NDArray[np.void]:
        """Return the records written since the last read, (n,) of `record_type`, and free their space."""
        raw = np.empty(self.waiting_bytes(), np.uint8)
        return self.records(raw[: self.read_into(raw)])

    def waiting_bytes(self) -> int:
        """Return the number of bytes that the next read needs."""
        return self._position(self._producer) - self._position(self._consumer)

    def read_into(self, raw: NDArray[np.uint8]) -> int:
        """Copy records to the start of `raw`, as many as fit, free their space, and return the number of bytes."""
        consumed = self._position(self._consumer)
        count = min(self._position(self._producer) - consumed, len(raw)) // self._framed.itemsize
        copied = self._copy_records(consumed % self._size, count, raw) if count else 0
        _POSITION.pack_into(self._consumer, 0, consumed + copied)
        return copied

    def records(self, raw: NDArray[np.uint8]) -> NDArray[np.void]:
        """Return copied bytes as records, (n,) of `record_type`."""
        records: NDArray[np.void] = raw.view(self._framed)["record"]
        return records

    def close(self) -> None:
        """Unmap the two positions."""
        self._consumer.close()
        self._producer.close()

    def _copy_records(self, at: int, count: int, raw: NDArray[np.uint8]) -> int:
        skipped = at % mmap.PAGESIZE
        length, offset = skipped + count * self._framed.itemsize, 2 * mmap.PAGESIZE + at - skipped
        with mmap.mmap(self._fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as pages:
            # Flags first: memcpy has no order, so an unwritten record could be copied and then be taken as finished.
            flags = np.frombuffer(pages, self._framed, count, skipped)["length"].copy()
            unfinished = np.flatnonzero(flags & _BUSY)  # reserved on another CPU, not yet written
            finished = int(unfinished[0]) if len(unfinished) else count
            size = finished * self._framed.itemsize
            raw[:size] = np.frombuffer(pages, np.uint8, size, skipped)  # as bytes: numpy copies records field by field
        return size

    def _position(self, page: mmap.mmap) -> int:
        position: int = _POSITION.unpack_from(page)[0]
        return position
