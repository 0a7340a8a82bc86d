"""Reading a ring buffer in the kernel's layout (kernel/bpf/ringbuf.c), here in a memory file."""

import mmap
import os
import struct

import numpy as np
import pytest

from watchdog.kernel.ring_buffer import RingBuffer

RECORD = np.dtype([("number", "<u8"), ("twice", "<u8")])
SIZE = mmap.PAGESIZE
BUSY = 1 << 31
FRAME = 8 + RECORD.itemsize


class Producer:
    """Writes records like the kernel, and mirrors the data like its double mapping."""

    def __init__(self, at):
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.at = at
        os.pwrite(self.fd, struct.pack("<Q", at), 0)
        os.pwrite(self.fd, struct.pack("<Q", at), mmap.PAGESIZE)

    def write(self, number, flags=0):
        frame = struct.pack("<IIQQ", RECORD.itemsize | flags, 0, number, 2 * number)
        for offset, byte in enumerate(frame):
            position = (self.at + offset) % SIZE
            for copy in (0, SIZE):
                os.pwrite(self.fd, bytes([byte]), 2 * mmap.PAGESIZE + copy + position)
        self.at += len(frame)
        os.pwrite(self.fd, struct.pack("<Q", self.at), mmap.PAGESIZE)

    def finish(self, index_from_end):
        position = (self.at - index_from_end * FRAME) % SIZE
        for copy in (0, SIZE):
            os.pwrite(self.fd, struct.pack("<I", RECORD.itemsize), 2 * mmap.PAGESIZE + copy + position)

    def consumed(self):
        return struct.unpack("<Q", os.pread(self.fd, 8, 0))[0]


@pytest.fixture(params=[0, SIZE - FRAME // 2 // 8 * 8, 7 * SIZE + 8], ids=["start", "over the end", "later lap"])
def producer(request):
    producer = Producer(request.param)
    yield producer
    os.close(producer.fd)


@pytest.fixture
def ring(producer):
    reader = RingBuffer(producer.fd, SIZE, RECORD)
    yield reader
    reader.close()


def test_each_record_is_read_once_in_order(producer, ring):
    for number in range(100):
        producer.write(number)
    first = ring.read()
    producer.write(100)
    second = ring.read()

    assert first["number"].tolist() == list(range(100))
    assert first["twice"].tolist() == [2 * number for number in range(100)]
    assert second["number"].tolist() == [100]
    assert ring.read()["number"].tolist() == []
    assert producer.consumed() == producer.at


def test_reads_fill_one_array_in_order_as_far_as_there_is_room(producer, ring):
    raw, filled = np.empty(20 * FRAME + 7, np.uint8), 0
    for first in (0, 9, 18):
        for number in range(first, first + 9):
            producer.write(number)
        filled += ring.read_into(raw[filled:])

    assert ring.records(raw[:filled])["twice"].tolist() == [2 * number for number in range(20)]
    assert ring.waiting_bytes() == 7 * FRAME
    assert ring.read()["number"].tolist() == list(range(20, 27))


def test_reading_stops_at_an_unfinished_record(producer, ring):
    producer.write(1)
    producer.write(2, BUSY)
    producer.write(3)
    before = ring.read()["number"].tolist()
    producer.finish(2)
    after = ring.read()["number"].tolist()

    assert (before, after) == ([1], [2, 3])
