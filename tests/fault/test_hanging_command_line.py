"""A real process that holds its mmap_lock: each reader of its command line waits, until a page that it reads comes.

It maps a page of a file system (FUSE) of its own. The first read of the page fails, the kernel tries again with the
lock held, and the second read is answered late. Another thread calls mmap() and waits as a writer, which blocks all
readers. Meanwhile every `ps` on this host waits too: at most `HANG_SECONDS`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchdog.measure.process_reader import READ_SECONDS, ProcessReader
from watchdog.measure.procfs import UnreadReason

HANG_SECONDS = 5
PATIENCE = 60.0
SERVER = r"""
import ctypes, errno, os, signal, struct, sys, time
place, seconds, locker = sys.argv[1], float(sys.argv[2]), sys.argv[3]
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=0100444,user_id=0,group_id=0".encode()
if libc.mount(b"x", place.encode(), b"fuse", 6, options):
    sys.exit("mount failed")
signal.alarm(20)
if os.fork() == 0:
    os.close(fd)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", locker, place])
attributes = (1, 1 << 20, 2048, 0, 0, 0, 0, 0, 0, 0o100444, 1, 0, 0, 0, 4096, 0)
reads = 0
def reply(unique, data=b"", error=0):
    os.write(fd, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)
while True:
    request = os.read(fd, 1 << 17)
    code, unique = struct.unpack("<4xIQ", request[:16])
    if code == 26:  # INIT
        reply(unique, struct.pack("<IIIIHHIIHH", 7, 31, 0, 0, 12, 9, 65536, 1, 1, 0).ljust(64, b"\0"))
    elif code == 3:  # GETATTR
        reply(unique, struct.pack("<16x6Q10I", *attributes))
    elif code == 14:  # OPEN
        reply(unique, struct.pack("<QII", 1, 0, 0))
    elif code == 15:  # READ
        reads += 1
        if reads == 1:
            reply(unique, error=errno.EIO)
        else:
            print("held", flush=True)
            time.sleep(seconds)
            reply(unique, bytes(struct.unpack("<I", request[56:60])[0]))
    elif code in (18, 25):  # RELEASE, FLUSH
        reply(unique)
    elif code not in (2, 36):
        reply(unique, error=errno.ENOSYS)
"""
LOCKER = r"""
import ctypes, os, sys, _thread, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
file = os.open(sys.argv[1], os.O_RDONLY)
os.fstat(file)  # the kernel learns the size
libc.mlockall(1)  # no other page is read later
page = libc.mmap(None, 4096, 1, 2, file, 0)
def touch():
    libc.memchr(page, 1, 1)
def write():
    libc.usleep(400_000)
    libc.mmap(None, 4096, 1, 0x22, -1, 0)
_thread.start_new_thread(write, ())
_thread.start_new_thread(touch, ())
libc.sleep(60)
"""


def descendants(pid):
    """Return the processes below `pid`."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(each for child in children for each in descendants(child))]


@pytest.fixture
def holder(tmp_path):
    """Return the pid of a process that holds its command line, and the process that ends all of it."""
    place = tmp_path / "page"
    place.touch()
    inside = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    server = subprocess.Popen(
        ["timeout", "-s", "KILL", "20", *inside, sys.executable, "-c", SERVER, place, str(HANG_SECONDS), LOCKER],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "held\n"
    time.sleep(0.6)  # the writer waits now
    yield descendants(server.pid)[-1]
    for pid in [server.pid, *descendants(server.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.communicate()


def test_a_held_command_line_costs_its_limit_once_and_delays_no_other(holder):
    reader = ProcessReader()
    end = time.monotonic() + PATIENCE
    while reader.read(os.getpid(), None, 5.0) is UnreadReason.LATE and time.monotonic() < end:
        pass
    began = time.monotonic()
    answer = reader.read(holder, None, 5.0)
    took = time.monotonic() - began
    others = reader.read(os.getpid(), None, 5.0)
    still_held = reader.read(holder, None, 5.0)
    reader.close()

    assert (answer, still_held) == (UnreadReason.HELD, UnreadReason.HELD)
    assert READ_SECONDS <= took < HANG_SECONDS / 2
    assert others is UnreadReason.LATE or "pytest" in " ".join(others.arguments)
    assert reader.kill_count == 1
